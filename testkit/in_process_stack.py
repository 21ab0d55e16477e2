"""A server and an archive, with flushers and committers in the test's own process."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from busyapi import cli
from busyapi.flusher.loop import Flusher
from busyapi.stream.keys import PartitionKeys
from testkit.archive_reader import read_archive
from testkit.in_process import (
    CommitterHarness,
    endpoint_of,
    gather_results,
    make_flusher,
    make_lines,
    poll_until,
    run_committer,
    run_flusher,
)
from testkit.servers import Server

KEYS = PartitionKeys(0)
BOUND = 1000


class InProcessStack:
    """A server, an archive folder, and the flushers and committers that use them."""

    def __init__(self, server: Server, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = server
        self.archive = archive
        self._monkeypatch = monkeypatch
        # A flush waits this long for work. A whole second in each test adds up.
        monkeypatch.setattr("busyapi.flusher.buffer.MAX_FLUSH_WAIT_SECONDS", 0.1)

    @asynccontextmanager
    async def run_committer(self) -> AsyncIterator[CommitterHarness]:
        """Run a committer on the server."""
        async with run_committer(endpoint_of(self.server)) as committer:
            yield committer

    def make_flusher(self, **options: Any) -> Flusher:
        """Return a flusher of the archive. `options` replace the defaults."""
        return make_flusher(endpoint_of(self.server), self.archive, **{"bound": BOUND, **options})

    @asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[tuple[Flusher, CommitterHarness]]:
        """Run a flusher and a committer, both ready."""
        async with (
            run_flusher(self.make_flusher(**options)) as flusher,
            self.run_committer() as committer,
        ):
            await committer.wait_until_ready()
            yield flusher, committer

    def read_state(self) -> dict[str, str]:
        """Return the partition's state hash."""
        state: dict[str, str] = self.server.command("HGETALL", KEYS.state)
        return state

    def read_seq(self) -> int:
        """Return the highest seq issued."""
        return int(self.server.command("GET", KEYS.seq) or 0)

    def read_entry_ids(self) -> list[str]:
        """Return the ids of the entries in the stream."""
        return [name for name, _ in self.server.command("XRANGE", KEYS.stream, "-", "+")]

    async def wait_until_archived(self, seq: int) -> None:
        """Wait until Redis records this seq as archived."""
        await poll_until(
            lambda: self.read_state().get("archived") == str(seq), f"seq {seq} to be archived"
        )

    def read_archived_ids(self) -> list[int]:
        """Return the ids in the archive, in order."""
        return [line.id for line in read_archive(self.archive).partition(0).lines]

    def read_gaps(self) -> list[tuple[int, int]]:
        """Return the first and last id of each gap record."""
        return [gap[:2] for gap in read_archive(self.archive).partition(0).gaps]

    def run_command(self, *words: str) -> int:
        """Run `busyapi archive …` on the archive, and return its exit code."""
        self._monkeypatch.setenv("BUSYAPI_ARCHIVE_DIR", str(self.archive))
        return cli.main(["archive", *words])

    def accept_loss(self, through: int) -> int:
        """Accept the loss of all seqs up to this one, and return the command's exit code."""
        words = f"accept-loss --partition 0 --through {through} --reason typo --yes"
        return self.run_command(*words.split())

    def accept_reported_loss(self, reason: str) -> int:
        """Run the `accept-loss` command that a halted flusher's reason names."""
        words = reason[reason.index("busyapi archive accept-loss") :].split()[2:]
        words[words.index("--reason") + 1] = "a test says so"
        return self.run_command(*words, "--yes")

    async def post(
        self, committer: CommitterHarness, name: str, count: int
    ) -> list[int | BaseException]:
        """Post usages one by one, and return their seqs."""
        return await gather_results([committer.post(line) for line in make_lines(name, count)])

    def copy_data(self) -> Path:
        """Copy the server's data, and return the copy's path."""
        copy = self.server.folder / "copy"
        shutil.copytree(self.server.folder / "appendonlydir", copy)
        return copy

    def restore_data(self, copy: Path) -> None:
        """Replace the data of a stopped server by a copy."""
        self.server.wipe()
        shutil.copytree(copy, self.server.folder / "appendonlydir")

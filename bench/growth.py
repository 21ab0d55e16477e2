"""Check that only the archive grows: one stack, millions of usages, with snapshots in between.

    fill to 1 M ── snapshot ── fill to 10 M ── snapshot ── fill to 50 M ── snapshot, verify

At the end it prints the sizes of a usage and an Idempotency-Key in Redis, for
docs/reference/sizing.md.

A tenth is posted one by one through wrk, the rest in batches of different usages, so that zstd gets
realistic data. A snapshot is taken when all is archived: memory, CPU since the last one, bytes, and
the duration of a lookup, a count and a restart of each process. It ends with the restarts, so
the memory is that of processes which received 1, 9 and 40 million usages.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from bench.cli import make_temporary_folder
from bench.progress import print_progress
from bench.realistic import make_batch
from bench.snapshot import Snapshot, archived_usages, read_cpu_seconds, render, take_snapshot
from busyapi.argument_types import whole_number
from busyapi.stream.keys import PartitionKeys
from perf import archive_ids, wrk
from perf.load import SINGLE, Load
from perf.machine import describe_machine, versions
from perf.stack import BusyapiStack
from testkit.servers import FLAVOURS, Flavour, Server
from testkit.waiting import wait_until

MILLION = 1_000_000
CONNECTIONS = 64
BATCH = 1000
BATCH_COUNT = 200
"""Batches that are made before the start, 20 MB: far more than the window of zstd."""
POSTERS = 4
SINGLE_SHARE = 0.1
"""The share that is posted one by one."""
SLICE_SECONDS = 5
BUFFERED_USAGES = 200_000
SERIAL_POSTS = 2000
KEY_COUNTS = (132_000, 263_000, 400_000, 525_000, 800_000, 1_000_000, 1_060_000)
"""Some are just above a power of two, where a server has just enlarged its table."""
REWRITE_SECONDS = 60.0


class Weight(NamedTuple):
    """The bytes in Redis for one usage that waits."""

    memory: float
    log: float
    """Bytes that it appends to its log, before a rewrite."""


class Filler:
    """Posts until a number of usages is stored."""

    def __init__(self, contender: BusyapiStack, folder: Path) -> None:
        self._contender = contender
        self._folder = folder
        self._script = SINGLE.write_script(folder)
        self._bodies: Sequence[Load] = [make_batch(seed, BATCH) for seed in range(BATCH_COUNT)]
        self._singles = 0

    def fill(self, target: int) -> None:
        """Post until `target` usages, or a few more, are stored since the start."""
        while (stored := archived_usages(self._contender)) < target:
            if self._singles < SINGLE_SHARE * stored:
                self._singles += self.post_in_parallel()
            else:
                self.post_batches(min(target - stored, MILLION))

    def post_in_parallel(self) -> int:
        """Post single usages over many connections, and return the number of answers."""
        line = wrk.command(SINGLE, self._script, self._contender.origin, SLICE_SECONDS, CONNECTIONS)
        result = wrk.run(line, self._folder / "wrk.log", SLICE_SECONDS)
        if result.not_2xx or result.socket_errors:
            raise RuntimeError(f"wrk saw {result.not_2xx + result.socket_errors} errors")
        return result.accepted

    def post_serially(self) -> None:
        """Post single usages, one after the other."""
        self._post([SINGLE] * SERIAL_POSTS)

    def post_with_keys(self) -> None:
        """Post single usages, each with its own Idempotency-Key, one after the other."""
        self._post([SINGLE] * SERIAL_POSTS, keyed=True)

    def post_batches(self, usages: int) -> None:
        """Post usages in batches, at least one from each thread."""
        rounds = max(1, usages // (BATCH * POSTERS))
        with ThreadPoolExecutor(POSTERS) as pool:
            turns = [range(poster, rounds * POSTERS, POSTERS) for poster in range(POSTERS)]
            loads = [[self._bodies[turn % BATCH_COUNT] for turn in entry] for entry in turns]
            list(pool.map(self._post, loads))

    def _post(self, loads: Iterable[Load], *, keyed: bool = False) -> None:
        connection = HTTPConnection("127.0.0.1", self._contender.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        for load in loads:
            if keyed:
                headers["Idempotency-Key"] = uuid4().hex
            connection.request("POST", load.path, load.body, headers)
            answer = connection.getresponse()
            answer.read()
            if answer.status != load.status:
                raise RuntimeError(f"{load.path} was answered {answer.status}")
        connection.close()


def run(folder: Path, targets: Sequence[int]) -> tuple[list[Snapshot], list[str], dict[str, str]]:
    """Fill, take snapshots and verify; return the snapshots, notes and versions."""
    snapshots: list[Snapshot] = []
    with BusyapiStack(folder / "stack", apis=2) as contender:
        filler = Filler(contender, folder)
        stored = 0
        for target in targets:
            print_progress(f"growth: filling to {target:,}")
            cpu, started = read_cpu_seconds(contender), time.monotonic()
            filler.fill(target)
            snapshots.append(take_snapshot(contender, stored, cpu, time.monotonic() - started))
            stored = snapshots[-1].usages
            print_progress(f"growth: {snapshots[-1]}")
        what = versions(contender.server)
        print_progress("growth: filling Redis with the flusher paused")
        waiting = [
            f"a usage that waits in Redis, {how}: {_describe(_waiting(contender, post))}"
            for how, post in (
                ("posted in batches", lambda: filler.post_batches(BUFFERED_USAGES)),
                (f"{CONNECTIONS} devices at a time", filler.post_in_parallel),
                ("one device, an entry each", filler.post_serially),
                ("likewise, with keys", filler.post_with_keys),
            )
        ]
        stored = archived_usages(contender)
        for entry in [*contender.stack.apis, *contender.stack.flushers]:
            entry.stop()
        archived = archive_ids.count_lines(contender.stack.archive)
        if archived.lines != stored or archived.fault:
            raise RuntimeError(f"{archived.lines:,} lines for {stored:,} usages; {archived.fault}")
        proof = verify(contender.stack.archive)
    return (
        snapshots,
        [*waiting, *(measure_key_size(folder, flavour) for flavour in FLAVOURS), proof],
        what,
    )


def _waiting(contender: BusyapiStack, post: Callable[[], object]) -> Weight:
    """Return the bytes in Redis for one usage while no flusher archives."""
    (flusher,) = contender.stack.flushers
    archived_usages(contender)
    # A rewrite in between would hide the appended bytes.
    contender.server.client().config_set("auto-aof-rewrite-percentage", 0)
    flusher.pause()
    try:
        before = _read_redis(contender)
        post()
        after = _read_redis(contender)
    finally:
        flusher.resume()
    more = after[0] - before[0]
    return Weight((after[1] - before[1]) / more, (after[2] - before[2]) / more)


def _describe(weight: Weight) -> str:
    return f"{weight.memory:.0f} bytes of memory, {weight.log:.0f} of its log"


def _read_redis(contender: BusyapiStack) -> tuple[int, int, int]:
    """Return the partition's seq, the bytes that Redis uses, and those of its log."""
    client = contender.server.client()
    seq, log = (
        int(client.get(PartitionKeys(0).seq) or 0),
        client.info("persistence")["aof_current_size"],
    )
    return seq, client.info("memory")["used_memory"], log


def measure_key_size(folder: Path, flavour: Flavour) -> str:
    """Describe the maximum size of one Idempotency-Key, written as commit_keyed.lua does."""
    lines = []
    config = ["appendfsync no", "auto-aof-rewrite-percentage 0"]
    with Server(folder / f"keys-{flavour}", flavour, config=config) as server:
        client, hashes = server.client(), PartitionKeys(0).idempotency_hashes
        empty, process = client.info("memory")["used_memory"], 0
        for count in KEY_COUNTS:
            with client.pipeline(transaction=False) as pipeline:
                for number in range(process, count):
                    name = hashes[number % len(hashes)]
                    pipeline.hset(name, uuid4().hex, f"{uuid4().hex} {2**31} {2**31:x}{number:x}")
                pipeline.execute()
            process = count
            lines.append((client.info("memory")["used_memory"] - empty) / count)
        rewritten = _rewrite_log(server) / process
    return (
        f"an Idempotency-Key, {flavour}: {max(lines):.0f} bytes of memory"
        f" ({min(lines):.0f} at the best number of them), {rewritten:.0f} of a rewritten log"
    )


def _rewrite_log(server: Server) -> int:
    """Return the size of the server's log after a rewrite."""
    client = server.client()
    client.bgrewriteaof()
    wait_until(
        lambda: not client.info("persistence")["aof_rewrite_in_progress"],
        "the log to be rewritten",
        seconds=REWRITE_SECONDS,
    )
    size: int = client.info("persistence")["aof_base_size"]
    return size


def verify(archive: Path) -> str:
    """Run `busyapi archive verify`, and return its last line with the duration."""
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-m", "busyapi", "archive", "verify", "--dir", str(archive)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if process.returncode:
        raise RuntimeError(f"verify ended with {process.returncode}:\n{process.stdout[-2000:]}")
    return f"verify: {process.stdout.strip().splitlines()[-1]} ({time.monotonic() - started:.0f} s)"


def main(arguments: list[str] | None = None) -> int:
    """Run the fill, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--usages",
        type=whole_number(1),
        nargs="+",
        default=[MILLION, 10 * MILLION, 50 * MILLION],
        metavar="N",
        help="numbers of usages at which to take a snapshot (default 1, 10 and 50 million); each "
        "10 million take minutes",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("/var/tmp"),  # noqa: S108 - a temporary folder is made in it
        metavar="DIR",
        help="a folder on a disk with 200 MB free, and 20 bytes for each usage (default /var/tmp)",
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the snapshots as JSON"
    )
    options = parser.parse_args(arguments)
    with make_temporary_folder(options.folder) as folder:
        here = describe_machine(folder)
        snapshots, notes, what = run(folder, options.usages)
    if options.json:
        options.json.write_text(json.dumps([asdict(entry) for entry in snapshots], indent=2) + "\n")
    sys.stdout.write("\n\n".join([render(snapshots), *notes, f"{here}\n{what}\n"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Verifies the archive of a running flusher from time to time, as `busyapi archive verify` does.

The flusher does it, and no other pod, because only one pod can mount a ReadWriteOncePod volume, and
the flusher's metrics are scraped already. The verification has a process of its own with the lowest
priority: it takes minutes of CPU, which must delay neither a flush nor a probe. Its memory does not
grow with the archive. If memory is short, the kernel ends this process before the flusher.
"""

import asyncio
import json
import sys
import time
from asyncio import to_thread
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import structlog

from busyapi.archive import paths
from busyapi.archive.verification import Verification, read_verification, write_verification
from busyapi.flusher.loop import Flusher
from busyapi.flusher.priority import lower_priority
from busyapi.telemetry.metrics import FlusherMetrics

log = structlog.get_logger()

FIRST_SECONDS = 3600.0
"""The delay of the first verification: short, because it may be the restored copy of an archive."""
RETRY_SECONDS = 3600.0
"""After a verification that did not finish."""
POLL_SECONDS = 1.0
LOWEST_PRIORITY = 19
MAX_LOGGED = 20
"""Problems that are logged, one line each. `busyapi archive verify` prints all of them."""


class VerifyFailed(Exception):
    """The verification did not finish. The message says why."""


class Result(NamedTuple):
    """What a verification found."""

    usages: int
    problems: list[str]


class Verifier:
    """Verifies one partition every `interval_seconds`; 0 disables it."""

    def __init__(
        self,
        archive_dir: Path,
        partition: int,
        interval_seconds: float,
        flusher: Flusher,
        metrics: FlusherMetrics,
    ) -> None:
        self._archive_dir, self._partition = archive_dir, partition
        self._folder = paths.partition_folder(archive_dir, partition)
        self._interval = interval_seconds
        self._flusher, self._metrics = flusher, metrics
        self._due: float | None = None
        """When the next verification starts, by the monotonic clock."""
        metrics.verify_interval_seconds.set(interval_seconds)
        # Without a verification, its age counts from here.
        metrics.verified_timestamp_seconds.set(time.time())

    async def run(self) -> None:
        """Verify until the task is cancelled, while the flusher holds the archive."""
        if not self._interval:
            return
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if self._flusher.writer is None:
                continue
            if self._due is None:
                self._restore(await to_thread(read_verification, self._folder))
            elif monotonic() >= self._due:
                await self._verify()

    def _restore(self, last: Verification | None) -> None:
        """Continue after the last verification of an earlier process.

        If that found problems, verify at once: an operator may have repaired the archive.
        """
        if last is None:
            self._due = monotonic() + min(FIRST_SECONDS, self._interval)
            return
        self._metrics.verified_timestamp_seconds.set(last.ended)
        self._metrics.verify_problems.set(last.problems)
        # A clock that was set back makes no verification later than the interval.
        rest = min(self._interval, last.ended + self._interval - time.time())
        self._due = monotonic() + (0.0 if last.problems else rest)

    async def _verify(self) -> None:
        started = monotonic()
        try:
            result = await self._run_process()
        except (VerifyFailed, OSError) as error:
            log.warning("archive_not_verified", detail=str(error))
            self._due = monotonic() + min(RETRY_SECONDS, self._interval)
            return
        seconds = monotonic() - started
        for detail in result.problems[:MAX_LOGGED]:
            log.error("archive_problem_found", detail=detail)
        log.info(
            "archive_verified",
            usages=result.usages,
            problems=len(result.problems),
            seconds=round(seconds, 1),
        )
        verification = Verification(time.time(), len(result.problems))
        self._metrics.verified_timestamp_seconds.set(verification.ended)
        self._metrics.verify_problems.set(verification.problems)
        self._metrics.verify_seconds.set(seconds)
        self._due = monotonic() + self._interval
        if self._flusher.writer:
            await to_thread(write_verification, self._folder, verification)

    async def _run_process(self) -> Result:
        """Run the command.

        Raises:
            VerifyFailed: it printed no result.
        """
        command = ("archive", "verify", "--json", "--partition", str(self._partition))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "busyapi", *command, "--dir", str(self._archive_dir)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env={},  # it needs no setting, and no password
        )
        try:
            lower_priority(process.pid, LOWEST_PRIORITY)
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        try:
            return _parse(output)
        except (ValueError, KeyError, TypeError):
            last_line = errors.decode(errors="replace").strip().rpartition("\n")[2]
            raise VerifyFailed(
                f"busyapi archive verify ended with {process.returncode}: {last_line or 'no error'}"
            ) from None


def _parse(output: bytes) -> Result:
    report: dict[str, Any] = json.loads(output)
    problems = [
        " ".join(filter(None, (problem["kind"], problem["ids"], problem["detail"])))
        for problem in report["problems"]
    ]
    return Result(int(report["usages"]), problems)

"""Kill the primary again and again under load, and check that nothing acknowledged is lost.

busyapi in the tier `replicated` and NATS JetStream with three replicas get the same load, the same
kills and the same checker.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.cli import make_temporary_folder
from bench.kill_systems import Busyapi, JetStream, System
from bench.markdown import table
from bench.progress import print_progress
from busyapi.argument_types import whole_number
from testkit.checker import Defect, Verdict
from testkit.history import History, Outcome
from testkit.load import Load
from testkit.waiting import wait_until

SYSTEMS = {"busyapi": Busyapi, "nats": JetStream}
CONNECTIONS = 4
"""For posts without a key, and as many for posts with one."""
CALM_SECONDS = 1.0
"""Load between two kills, after every server has everything."""
STEP_SECONDS = 60.0
SUMMARIES = (min, statistics.median, max)
TWICE = (Defect.ARCHIVED_TWICE, Defect.UNKNOWN_TWICE)


@dataclass(frozen=True)
class Record:
    """The result for one system."""

    title: str
    kills: int
    verdict: Verdict
    silences: list[float]
    """The longest time without a 201 after each kill, in seconds."""


def play(system: System, title: str, kills: Sequence[str]) -> Record:
    """Play kills, named by the methods of `System`, under load."""
    history, killed = History(), []
    with system.running():
        with _posting(system, history):
            _wait_for_usages(history)
            for number, kill in enumerate(kills):
                time.sleep(CALM_SECONDS)
                killed.append(time.monotonic())
                getattr(system, kill)()
                system.wait_until_whole()
                _wait_for_usages(history)
                print_progress(f"{title}: {kill} {number + 1} of {len(kills)}")
        # `busyapi archive verify` prints what it finds.
        with redirect_stdout(sys.stderr):
            verdict = system.check(history)
    return Record(title, len(kills), verdict, list(find_silences(history, killed)))


@contextmanager
def _posting(system: System, history: History) -> Iterator[None]:
    with ExitStack() as loads:
        for keys in (False, True):
            load = Load(system.port, connections=CONNECTIONS, keys=keys, history=history)
            loads.enter_context(load)
        yield


def _wait_for_usages(history: History, count: int = 100) -> None:
    goal = history.acknowledged + count
    wait_until(lambda: history.acknowledged >= goal, "usages", seconds=STEP_SECONDS)


def find_silences(history: History, times: Sequence[float]) -> Iterator[float]:
    """Yield for each time the longest gap between two 201s, until the next time."""
    answered = sorted(r.answered for r in history.requests if r.outcome is Outcome.OK)
    for start, end in zip(times, [*times[1:], float("inf")], strict=False):
        here = [start, *(moment for moment in answered if start < moment < end)]
        gaps = (after - before for before, after in pairwise(here))
        yield max(gaps, default=float("inf"))


def render(records: Sequence[Record]) -> str:
    """Return a table, and below it each verdict."""
    head = (
        "",
        "kills",
        "acknowledged",
        "lost",
        "other usage under the id",
        "twice",
        "unknown",
        "refused",
        "silence s: least",
        "median",
        "most",
    )
    rows = (
        (
            record.title,
            f"{record.kills}",
            f"{record.verdict.history.acknowledged:,}",
            f"{record.verdict.defects[Defect.MISSING]:,}",
            f"{record.verdict.defects[Defect.MISMATCH]:,}",
            f"{sum(record.verdict.defects[defect] for defect in TWICE):,}",
            f"{record.verdict.history.usages[Outcome.UNKNOWN]:,}",
            f"{record.verdict.history.usages[Outcome.REFUSED]:,}",
            *(f"{choose(record.silences or [0.0]):.1f}" for choose in SUMMARIES),
        )
        for record in records
    )
    return "\n\n".join([table(head, rows), *(f"{r.title}: {r.verdict}" for r in records)]) + "\n"


def main() -> int:
    """Play both histories, and return 1 if busyapi lost or doubled a usage."""
    parser = argparse.ArgumentParser(prog="python -m bench.kill_history", description=__doc__)
    parser.add_argument("--rounds", type=whole_number(1), default=10, help="kills (default 10)")
    parser.add_argument("--system", choices=SYSTEMS, help="only this one")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"))  # noqa: S108 - see `cli`
    options = parser.parse_args()
    records, failed = [], False
    for name in [options.system] if options.system else SYSTEMS:
        system = SYSTEMS[name]
        for what, kills in (
            ("primary lost", ["lose_primary"] * options.rounds),
            ("primary lost, then the other follower paused", ["promote_paused"]),
        ):
            with make_temporary_folder(options.folder) as folder:
                record = play(system(folder / name), f"{system.title}: {what}", kills)
            records.append(record)
            failed |= name == "busyapi" and not record.verdict.ok
    sys.stdout.write(render(records))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

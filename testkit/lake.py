"""Run turns of `busyapi lake` in children that can be killed, and read the table.

    python -m testkit.lake < SCRIPT

A turn in a process of its own takes a second to start. This program imports everything once,
without a thread, and forks a child for each turn of the script: a JSON list of steps.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from testkit.archive.crash_cycle import switch

PARTITIONS = 2
RUN_BYTES = 3000
"""A turn has several commits, each with a part of a segment."""
FAILPOINTS = (
    "lake-file-row-group",
    "lake-file-closed",
    "lake-files-written",
    "lake-before-commit",
    "lake-after-commit",
    "lake-before-replace",
    "lake-after-replace",
    "lake-sweep-listed",
)


def run_script(steps: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Run the steps in a program of its own; return how often each failpoint killed a turn."""
    done = subprocess.run(
        [sys.executable, "-m", "testkit.lake"],
        input=json.dumps(steps),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return Counter(json.loads(done.stdout.splitlines()[-1]))


def open_lake(warehouse: Path | str, catalog: str = "") -> Any:
    """Return the table of a warehouse. Without a catalog, it is the one of a local folder."""
    from busyapi.lake.table import LakeConfig, LakeTable  # noqa: PLC0415 - after the switch is set

    return LakeTable(LakeConfig(str(warehouse), catalog, "busyapi.usages"))


def read_table(warehouse: Path | str, catalog: str = "") -> Any:
    """Return all rows of the table, as Arrow."""
    return open_lake(warehouse, catalog).load().scan().to_arrow()


def read_archive_ids(root: Path) -> list[int]:
    """Return the ids in the archive, finished or not."""
    from busyapi.archive_cli.line_filter import Query  # noqa: PLC0415 - after the switch is set
    from busyapi.archive_cli.partitions import find_partitions  # noqa: PLC0415 - likewise
    from busyapi.archive_cli.query import select_lines  # noqa: PLC0415 - likewise

    problems: list[str] = []
    partitions = [status.partition for status in find_partitions(root)]
    ids = [
        json.loads(line)["id"]
        for partition in partitions
        if partition
        for lines in select_lines(partition, Query(), problems.append)
        for line in lines.splitlines()
    ]
    assert problems == []
    return ids


def run_turn(
    root: Path,
    warehouse: Path | str,
    only: int | None = None,
    *,
    catalog: str = "",
    tidies: bool = True,
    orphan_seconds: float = 86_400.0,
) -> bool:
    """Run one turn; return whether it had no problem. Errors are raised.

    `orphan_seconds`: longer than any other process may take from a file to its commit.
    """
    from datetime import timedelta  # noqa: PLC0415 - beside those below

    from busyapi.lake import compaction, maintenance  # noqa: PLC0415 - after the switch is set
    from busyapi.lake.loop import LakeLoop, LoopConfig  # noqa: PLC0415 - likewise
    from busyapi.lake.taker import Taker  # noqa: PLC0415 - likewise

    compaction.MAX_INPUTS = 4
    maintenance.ORPHAN_AGE = timedelta(seconds=orphan_seconds)
    lake = open_lake(warehouse, catalog)
    config = LoopConfig(1.0, timedelta(seconds=1), tidies)
    return LakeLoop(lake, Taker(lake, root, only, RUN_BYTES), config).run_turn()


def grow(root: Path, partition: int, days: Iterable[int], count: int) -> None:
    """Add a finished segment with `count` usages of each day, the last of them in a gap."""
    from busyapi.ids import Seq  # noqa: PLC0415 - after the switch is set
    from testkit.archive import builder  # noqa: PLC0415 - likewise

    writer = builder.recover_writer(root, partition, PARTITIONS)
    for day in days:
        received = builder.RECEIVED_MS + day * builder.DAY_MS
        writer.append([builder.make_batch(writer.cursor + 1, count, received)])
    writer.record_gap(Seq(writer.cursor + 1), "why")
    writer.close()


def _fork(run: Callable[[], object]) -> int:
    if pid := os.fork():
        return pid
    try:
        run()
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - the parent sees the exit code
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)


def _run_step(step: Mapping[str, Any]) -> Iterator[str]:
    """Grow partitions and run turns at the same time; yield the failpoints that killed one.

    Raises:
        RuntimeError: a turn failed.
    """
    root, warehouse, catalog = Path(step["root"]), step["warehouse"], step.get("catalog", "")
    for partition, days in step.get("grow", ()):
        grow(root, partition, days, step["count"])

    def turn(failpoint: str, only: int | None = None) -> None:
        if failpoint:
            switch.set(failpoint)
        tidies, alone = only in (None, 0), len(step["processes"]) == 1
        orphan_seconds = 2.0 if alone else 300.0
        options = {"catalog": catalog, "tidies": tidies, "orphan_seconds": orphan_seconds}
        if not run_turn(root, warehouse, only, **options):
            raise RuntimeError("a turn had a problem")

    turns = [(process.get("failpoint", ""), process.get("only")) for process in step["processes"]]
    pids = [_fork(partial(turn, *one)) for one in turns]
    for pid, (failpoint, _) in zip(pids, turns, strict=True):
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if failpoint and status == -signal.SIGKILL:
            yield failpoint.partition("=")[0]
        elif status:
            raise RuntimeError(f"a turn ended with {status}")


def make_kills(
    root: Path,
    warehouse: Path | str,
    seed: int,
    kills: int,
    failpoints: Sequence[str] = FAILPOINTS,
) -> list[dict[str, Any]]:
    """Return steps that grow the archive, each with a turn that is killed, and a last one."""
    chance = random.Random(seed)
    steps: list[dict[str, Any]] = []
    for number in range(kills):
        failpoint = failpoints[number % len(failpoints)]
        # Every file of a commit is a place of its own: the last is the table's new metadata.
        hit = chance.randrange(1, 12) if failpoint == "lake-file-closed" else 1
        steps.append(
            {
                "root": str(root),
                "warehouse": str(warehouse),
                "grow": [(number % PARTITIONS, (number // 8, number // 8 + 1))],
                "count": chance.randrange(5, 40),
                "processes": [{"failpoint": f"{failpoint}=kill@{hit}"}],
            }
        )
    end = {"root": str(root), "warehouse": str(warehouse), "processes": [{}]}
    return [*steps, end]


def main() -> None:
    """Run the script on standard input."""
    switch.install()
    import busyapi.lake.loop  # noqa: PLC0415 - after the switch is set
    import busyapi.lake.taker  # noqa: F401, PLC0415 - likewise
    import testkit.archive.builder  # noqa: F401, PLC0415 - likewise

    killed = [name for step in json.load(sys.stdin) for name in _run_step(step)]
    sys.stdout.write(json.dumps(Counter(killed)) + "\n")


if __name__ == "__main__":
    main()

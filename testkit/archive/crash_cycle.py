"""Kill archive writers at each hit of a failpoint, and check the archive.

    python -m testkit.archive.crash_cycle ROOT ACKNOWLEDGED FAILPOINT FORMAT

For each hit of the failpoint in turn, until a writer ends without reaching it: prepare the folder,
run a writer in a child that is killed there, run a second one that recovers and is killed at the
same hit, then examine the folder. Print each error, and the number of hits.
"""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

from busyapi import failpoints

WRITER_RUNS = 2
_OLD_DAY = "2020-01-01"


class FailpointSwitch:
    """A failpoint function for all modules. A child sets what it does.

    Modules import the function by name, and their import takes longer than a writer run. So the
    parent imports them once, with this in place of the function.
    """

    def __init__(self) -> None:
        self.failpoint = failpoints.failpoint

    def __call__(self, name: str, /) -> None:
        """Reach a failpoint."""
        self.failpoint(name)

    def install(self) -> None:
        """Take the function's place, for the modules that are imported from now on."""
        failpoints.failpoint = self

    def set(self, spec: str) -> None:
        """Set the failpoints, with the syntax of BUSYAPI_FAILPOINTS."""
        self.failpoint = failpoints.make_failpoint(failpoints.parse_spec(spec))


switch = FailpointSwitch()


def import_modules() -> None:
    """Import the modules that a writer run uses, with the switch."""
    switch.install()
    import busyapi.archive_cli.verify  # noqa: PLC0415, F401 - after the switch
    import testkit.archive.builder  # noqa: F401, PLC0415


def set_format(number: int) -> None:
    """Write archives of this format."""
    from busyapi.archive import open_index  # noqa: PLC0415
    from testkit.archive import builder  # noqa: PLC0415

    builder.chosen_format = number
    open_index.WRITE_INTERVAL_BYTES = 1


def prepare(root: Path) -> None:
    """Write old segments to delete, and an open one with a torn tail."""
    from testkit.archive.builder import find_open_segment, write_blocks  # noqa: PLC0415 - only in a child

    write_blocks(root, 2, 1)
    write_blocks(root, 1)
    write_blocks(root, 3)
    for day in root.glob("p00/*-*"):
        day.rename(day.with_name(_OLD_DAY))
    path = find_open_segment(root)
    path.write_bytes(path.read_bytes() + path.read_bytes()[:-5])


def prepare_damaged(root: Path) -> None:
    """Write an open segment with three blocks, and damage the second."""
    from testkit.archive.builder import read_blocks, write_blocks  # noqa: PLC0415

    path = write_blocks(root, 2, 3, 2)
    data = bytearray(path.read_bytes())
    data[list(read_blocks(path))[1].end - 1] ^= 1
    path.write_bytes(data)


def accept_damage(root: Path, writer: Any) -> None:
    """Accept the loss of damaged blocks. Without damage nothing may be missing."""
    if writer.stats.highest_seq > writer.cursor:
        if not list(root.rglob("*.damaged")):
            raise AssertionError(f"only {writer.cursor} of {writer.stats.highest_seq} are there")
        writer.record_gap(writer.stats.highest_seq, "accepted")


def run_writer(root: Path, acknowledged: Path) -> None:
    """Recover, archive, and write the cursor to `acknowledged` after each step."""
    from busyapi.idempotency import IdempotencyRecord  # noqa: PLC0415
    from busyapi.ids import Seq  # noqa: PLC0415
    from testkit.archive.builder import make_batch, now_ms, recover_writer  # noqa: PLC0415

    cursors = os.open(acknowledged, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    writer = recover_writer(root, segment_bytes=700, retention_days=1)
    accept_damage(root, writer)
    for step in range(1, 9):
        following = Seq(writer.cursor + 1)
        if step == 4:
            writer.record_gap(Seq(following + 4), "why")
        elif step == 6:
            writer.quarantine(following, Seq(following + 1), b"raw", "why")
        else:
            writer.idempotency_log.append(
                [IdempotencyRecord(following, 1, now_ms(), "a" * 32, "b" * 32)]
            )
            writer.append([make_batch(following), make_batch(following + 1, step, now_ms())])
        os.write(cursors, b"%d\n" % writer.cursor)
        writer.roll_if_due()
    writer.close()


def examine(root: Path, acknowledged: Path) -> str:
    """Recover once more, without a failpoint, and return an error or an empty text."""
    from busyapi.archive_cli.verify import verify_archive  # noqa: PLC0415
    from busyapi.ids import Seq  # noqa: PLC0415
    from testkit.archive.builder import make_batch, read_ids, recover_writer  # noqa: PLC0415

    last = max(map(int, acknowledged.read_text().split()), default=0)
    writer = recover_writer(root)
    accept_damage(root, writer)
    if writer.cursor < last:
        return f"the cursor is {writer.cursor}, but {last} was acknowledged"
    writer.append([make_batch(writer.cursor + 1)])
    (report,) = verify_archive(root)
    if report.problems:
        return f"verify: {report.problems}"
    ids = read_ids(root)
    if len(set(ids)) != len(ids):
        return f"twice: {ids}"
    missing = set(range(writer.identity.kept_from, writer.cursor + 1)) - set(ids)
    unreadable = {n for n in missing if writer.find_line(Seq(n)) is None}
    if missing != unreadable or len(missing) != report.skipped + report.quarantined:
        return f"missing: {sorted(missing)}"
    writer.close()
    return ""


def run_in_child(name: str, root: Path, acknowledged: Path, spec: str = "") -> tuple[bool, str]:
    """Run one of the above functions in a child. Return whether it was killed, and its error."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if spec:
                switch.set(spec)
            result = globals()[name](*(root, acknowledged)[: 1 if "prepare" in name else 2])
            os.write(writing, (result or "").encode())
        except BaseException as error:  # noqa: BLE001 - the parent reports it
            os.write(writing, f"{name}: {error!r}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        problem = pipe.read()
    status = os.waitpid(pid, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, problem


def main() -> int:
    """Test every hit of one failpoint."""
    root, acknowledged, failpoint = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    import_modules()
    set_format(int(sys.argv[4]))
    killed, hit = True, 0
    while killed:
        hit += 1
        shutil.rmtree(root, ignore_errors=True)
        acknowledged.write_text("")
        run_in_child(
            "prepare_damaged" if "set-aside" in failpoint else "prepare", root, acknowledged
        )
        for run in range(WRITER_RUNS):
            died, problem = run_in_child(
                "run_writer", root, acknowledged, f"{failpoint}=kill@{hit}"
            )
            killed = died if run == 0 else killed
            if problem:
                sys.stdout.write(f"{failpoint}@{hit}: {problem}\n")
        _, problem = run_in_child("examine", root, acknowledged)
        if problem:
            sys.stdout.write(f"{failpoint}@{hit}: {problem}\n")
    sys.stdout.write(f"killed {hit - 1}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

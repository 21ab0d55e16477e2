"""Archive commands in their own processes: terminals, full disks, file permissions."""

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow.parquet
import pytest

from testkit.archive.builder import change_identity, find_segments, recover_writer, write_blocks
from testkit.volume import fill_volume, mount_small_volume

PROGRAM = """
import ctypes, os, sys
from busyapi.archive_cli import progress
from busyapi.cli import main
progress._INTERVAL_SECONDS = 0
if "TEST_WITHOUT_RIGHTS" in os.environ and os.geteuid() == 0:
    version_3, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert ctypes.CDLL(None).capset(version_3, none) == 0
sys.exit(main(sys.argv[1:]))
"""
"""busyapi, with progress after each block. `TEST_WITHOUT_RIGHTS` drops root's capabilities, which
let root open files without permission."""


class Done(NamedTuple):
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An archive of 11 usages, all received at 2025-11-23T19:12:00.123Z."""
    archive = tmp_path / "archive"
    write_blocks(archive, 5, 4, 2)
    recover_writer(archive).close()
    return archive


@pytest.fixture
def run(root: Path) -> Run:
    """A function that runs `busyapi archive …` on the archive."""

    def run_command(
        command: str, *arguments: str | Path, folder: Path = root, rights: bool = True
    ) -> Done:
        done = subprocess.run(
            words(command, *arguments, folder=folder),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | ({} if rights else {"TEST_WITHOUT_RIGHTS": "1"}),
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run_command


def words(command: str, *arguments: str | Path, folder: Path) -> list[str]:
    program = [sys.executable, "-c", PROGRAM, "archive", *command.split()]
    return [*program, "--dir", str(folder), *map(str, arguments)]


@pytest.mark.parametrize(
    "option", ["--patient 2", "--from 2025-11-23", "--to 2025-11-25", "--partition 0"]
)
def test_id_with_another_filter_is_refused(run: Run, option: str) -> None:
    done = run("cat --id 1", *option.split())
    assert (done.code, done.out) == (2, "")
    assert option.split(maxsplit=1)[0] in done.err


@pytest.mark.parametrize("command", ["cat", "export x.parquet"])
@pytest.mark.parametrize("until", ["2025-11-23", "2025-11-24"])
def test_time_that_ends_before_it_begins_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, until: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(command, "--from", "2025-11-24", "--to", until)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("busyapi: --from 2025-11-24T00:00:00.000Z must be earlier than --to")
    assert not Path("x.parquet").exists()


class TestNothingMatched:
    """A command that selects nothing prints the reason, without a patient's id."""

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ("--patient 88888", "none of the 11 usages here has that patientId"),
            (
                "--patient 88888 --from 2025-11-23",
                "none of the 11 usages of that time has that patientId",
            ),
            (
                "--to 2025-11-23",
                "received from 2025-11-23T19:12:00.123Z to 2025-11-23T19:12:00.123Z",
            ),
            ("--from 2025-11-24", "and later ones may not be archived yet"),
            ("--patient 88888 --to 2025-11-23", "the archived usages were received from"),
        ],
    )
    def test_reason_is_printed(self, run: Run, tmp_path: Path, options: str, reason: str) -> None:
        done = run("cat", *options.split())
        assert (done.code, done.out) == (0, "")
        assert done.err.startswith("busyapi: 0 usages matched: ")
        assert reason in done.err
        assert "88888" not in done.err
        target = tmp_path / "x.parquet"
        exported = run("export", "--replace", target, *options.split())
        assert (exported.code, exported.err) == (0, done.err)
        assert pyarrow.parquet.read_table(target).num_rows == 0

    def test_empty_archive(self, run: Run, tmp_path: Path) -> None:
        recover_writer(tmp_path / "empty").close()
        done = run("cat", folder=tmp_path / "empty")
        assert done.err == "busyapi: 0 usages matched: no usage is archived here\n"

    def test_retention_and_damage_are_named(self, run: Run, root: Path) -> None:
        change_identity(root / "p00/partition.json", keptFrom=3)
        path = find_segments(root)[0]
        path.write_bytes(path.read_bytes()[:50])
        done = run("cat", "--patient", "88888")
        assert done.code == 1
        assert "except what could not be read" in done.err
        assert "Usages before id 3 were deleted when their retention ended" in done.err

    def test_what_matched_is_not_commented(self, run: Run) -> None:
        done = run("cat", "--patient", "2")
        assert (done.code, done.err) == (0, "")
        assert done.out


class TestTerminal:
    """Progress and data never mix on a terminal."""

    @staticmethod
    def run_on_terminal(command: list[str] | str, out: BinaryIO | None = None) -> tuple[int, str]:
        """Run a command or a shell line on a terminal. Return exit code and output."""
        main, terminal = pty.openpty()
        with subprocess.Popen(
            command, stdout=out or terminal, stderr=terminal, shell=isinstance(command, str)
        ) as process:
            os.close(terminal)
            shown = b""
            while True:
                try:
                    part = os.read(main, 65_536)
                except OSError:  # Linux: the last program has closed the terminal
                    break
                if not part:
                    break
                shown += part
        os.close(main)
        return process.returncode, shown.decode()

    def test_cat_prints_only_data(self, root: Path) -> None:
        code, shown = self.run_on_terminal(words("cat", folder=root))
        assert code == 0
        assert [json.loads(line)["id"] for line in shown.splitlines()] == list(range(1, 12))

    def test_cat_into_a_pipe_to_the_terminal_prints_only_data(self, root: Path) -> None:
        _, shown = self.run_on_terminal(
            f"{sys.executable} -m busyapi archive cat --dir {root} | cat"
        )
        assert [json.loads(line)["id"] for line in shown.splitlines()] == list(range(1, 12))

    def test_cat_into_a_file_shows_progress(self, root: Path, tmp_path: Path) -> None:
        with (tmp_path / "out").open("wb") as out:
            code, shown = self.run_on_terminal(words("cat", folder=root), out)
        assert code == 0
        assert "\rreading: " in shown
        assert shown.endswith("\r\x1b[K")
        assert (tmp_path / "out").read_bytes().count(b"\n") == 11

    @pytest.mark.parametrize("command", ["verify", "export"])
    def test_result_begins_on_an_empty_line(self, root: Path, tmp_path: Path, command: str) -> None:
        target = [tmp_path / "x.parquet"] if command == "export" else []
        code, shown = self.run_on_terminal(words(command, *target, folder=root))
        assert code == 0
        progress, _, rest = shown.rpartition("\r\x1b[K")
        assert "ing: 0 MB" in progress
        assert rest.startswith(("partition 0: 11 usages", f"11 usages in {tmp_path}/x.parquet"))

    @pytest.mark.servers
    def test_error_begins_on_an_empty_line(self, root: Path, tmp_path: Path) -> None:
        with mount_small_volume(tmp_path / "small", "64k"):
            fill_volume(tmp_path / "small")
            command = words("export", tmp_path / "small/x.parquet", folder=root)
            code, shown = self.run_on_terminal(command)
        assert code == 1
        assert "\r\x1b[Kbusyapi: " in shown


@pytest.mark.servers
class TestFullDisk:
    """The error names the path on the full disk, not the archive."""

    @pytest.mark.parametrize("command", ["cat", "ls", "verify", "--help"])
    def test_output(self, root: Path, tmp_path: Path, command: str) -> None:
        small = tmp_path / "small"
        with mount_small_volume(small, "64k"):
            path = small / "out"
            path.touch()
            fill_volume(small)
            with path.open("wb") as out:
                done = subprocess.run(
                    words(command, folder=root),
                    stdout=out,
                    stderr=subprocess.PIPE,
                    # Without this variable output waits for the end, as it does for users.
                    env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"},
                    check=False,
                )
        assert done.returncode == 1
        assert done.stderr.decode() == f"busyapi: {path}: No space left on device\n"

    def test_export(self, run: Run, tmp_path: Path) -> None:
        small = tmp_path / "small"
        with mount_small_volume(small, "64k"):
            path = small / "x.parquet"
            path.write_bytes(b"before")
            fill_volume(small)
            done = run("export --replace", path)
            assert done.err == f"busyapi: {path}: No space left on device\n"
            assert path.read_bytes() == b"before"
            assert {path.name for path in small.iterdir()} == {"x.parquet", "ballast"}
        assert (done.code, done.out) == (1, "")

    def test_archive(self, run: Run, tmp_path: Path) -> None:
        small = tmp_path / "small"
        with mount_small_volume(small, "1m"):
            write_blocks(small, 3)
            (small / "p00/.reserve").unlink(missing_ok=True)
            fill_volume(small)
            record = ("--partition", "0", "--through", "9", "--reason", "x", "--yes")
            done = run("accept-loss", *record, folder=small)
        assert done.code == 1
        assert f"busyapi: {small}" in done.err
        assert "No space left on device" in done.err


class TestExportTarget:
    """The target is checked before any work, and changes only when the export is complete."""

    @pytest.fixture
    def unreadable(self, tmp_path: Path) -> Path:
        """No archive: a command that gets as far as reading it fails with code 2."""
        return tmp_path / "no-archive"

    def test_folder(self, run: Run, tmp_path: Path, unreadable: Path) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        for name in ("folder", "link"):
            done = run("export", tmp_path / name, folder=unreadable)
            assert (done.code, done.out) == (1, "")
            assert done.err == f"busyapi: {tmp_path / name} is a folder: name a file in it\n"

    def test_device_pipe_and_socket(self, run: Run, tmp_path: Path, unreadable: Path) -> None:
        os.mknod(tmp_path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("null")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(tmp_path / "socket"))
            for name in ("null", "fifo", "socket", "link"):
                before = (tmp_path / name).lstat().st_ino
                done = run("export", tmp_path / name, folder=unreadable)
                assert done.code == 1
                assert "is a device, a pipe or a socket" in done.err
                assert (tmp_path / name).lstat().st_ino == before

    def test_no_such_folder(self, run: Run, tmp_path: Path, unreadable: Path) -> None:
        (tmp_path / "file").touch()
        for name in ("no/x.parquet", "file/x.parquet"):
            done = run("export", tmp_path / name, folder=unreadable)
            assert done.code == 1
            assert str(tmp_path / name) in done.err

    def test_no_right(self, run: Run, tmp_path: Path, unreadable: Path) -> None:
        closed, protected = tmp_path / "closed", tmp_path / "protected"
        closed.mkdir(mode=0o555)
        protected.write_bytes(b"before")
        protected.chmod(0o444)
        for target, why in (
            (closed / "x.parquet", f"no file can be created in {closed}: Permission denied"),
            (protected, "exists and is write-protected"),
        ):
            done = run("export --replace", target, folder=unreadable, rights=False)
            assert (done.code, done.out) == (1, "")
            assert why in done.err
        assert protected.read_bytes() == b"before"

    def test_file_is_replaced_with_its_mode_and_a_link_stays(
        self, run: Run, tmp_path: Path
    ) -> None:
        real, link = tmp_path / "real.parquet", tmp_path / "link"
        real.write_bytes(b"before")
        real.chmod(0o600)
        link.symlink_to("real.parquet")
        for name in (link, real):
            done = run("export", name)
            assert (done.code, done.out) == (1, "")
            assert (
                "is a symbolic link to" if name == link else " exists: name another"
            ) in done.err
        assert real.read_bytes() == b"before"
        assert run("export --replace", link).code == 0
        assert link.is_symlink()
        assert pyarrow.parquet.read_table(real).num_rows == 11
        assert stat.S_IMODE(real.stat().st_mode) == 0o600
        link.unlink()
        link.symlink_to("new.parquet")
        assert run("export --replace", link).code == 0
        assert pyarrow.parquet.read_table(tmp_path / "new.parquet").num_rows == 11

    def test_incomplete_file_never_has_the_name(self, root: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        out.mkdir()
        target = out / "x.parquet"
        target.write_bytes(b"before")
        # The archive's last file is a pipe that nothing writes to: the export waits in the middle.
        last = find_segments(root)[-1]
        last.unlink()
        os.mkfifo(last)
        with subprocess.Popen(
            words("export --replace", target, folder=root), stderr=subprocess.DEVNULL
        ) as process:
            end = time.monotonic() + 20
            while len(list(out.iterdir())) < 2 and time.monotonic() < end:
                time.sleep(0.02)
            assert [path.name for path in out.glob("x*")] == ["x.parquet"]
            assert target.read_bytes() == b"before"
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(20) != 0
            finally:
                process.kill()
        assert [path.name for path in out.iterdir()] == ["x.parquet"]
        assert target.read_bytes() == b"before"


def test_new_table_of_patients_is_not_for_everybody(run: Run, tmp_path: Path) -> None:
    for options, name in (("", "x.csv"), ("--partition-by day --format csv", "days")):
        assert run(f"export {options}", tmp_path / name).code == 0
    paths = [tmp_path / "x.csv", tmp_path / "days"]
    assert [path.stat().st_mode & 0o007 for path in paths] == [0, 0]

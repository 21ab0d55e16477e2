"""During a fault, the runbooks' commands print what the runbooks show."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from pathlib import Path
from secrets import token_hex

import pytest

from testkit.api_client import USAGE, check_stored, send
from testkit.archive.builder import find_open_segments, find_segments
from testkit.docs.runbook_shell import StackShell
from testkit.docs.runbooks import RECOVERY, Page
from testkit.processes import Stack
from testkit.servers import Server
from testkit.volume import fill_volume, mount_small_volume
from testkit.waiting import wait_until
from tests.docs.test_runbook_commands import PAGES, SAME_IN_FAULT

FAULT_BLOCKS = {
    name: [block for block in page.blocks if block.expected and block.section != RECOVERY]
    for name, page in PAGES.items()
    if name not in SAME_IN_FAULT
}
"""Page -> the blocks whose output it shows during the fault."""

DETECT_SECONDS = 60.0
Fault = Callable[[Stack, Server], AbstractContextManager[None]]


@contextmanager
def kill_redis(stack: Stack, server: Server) -> Iterator[None]:
    """Kill the server, and start it at the end."""
    del stack
    server.kill9()
    yield
    server.start()


@contextmanager
def weaken_redis(stack: Stack, server: Server) -> Iterator[None]:
    """Set the server to fsync only once a second."""
    del stack
    server.client().config_set("appendfsync", "everysec")
    yield
    server.client().config_set("appendfsync", "always")


@contextmanager
def empty_redis(stack: Stack, server: Server) -> Iterator[None]:
    """Delete all data of the server."""
    del stack
    server.client().flushall()
    yield


@contextmanager
def add_foreign_entry(stack: Stack, server: Server) -> Iterator[None]:
    """Add an entry to the stream that no API process writes."""
    del stack
    last = int(server.command("INCRBY", "busyapi:{0}:seq", 1))
    server.client().xadd("busyapi:{0}:stream", {"u": b"not an entry of busyapi"}, id=f"{last}-1")
    yield


@contextmanager
def mount_wrong_volume(stack: Stack, server: Server) -> Iterator[None]:
    """Mount an empty volume, and the right one at the end."""
    (flusher,) = stack.flushers
    right = stack.archive.with_name("right")
    flusher.stop()
    stack.archive.rename(right)
    stack.archive.mkdir()
    server.client().delete("busyapi:{0}:lease")
    flusher.spawn()
    yield
    flusher.stop()
    stack.archive.rename(stack.archive.with_name("another"))
    right.rename(stack.archive)
    server.client().delete("busyapi:{0}:lease")
    flusher.start()


@contextmanager
def damage_segment(stack: Stack, server: Server) -> Iterator[None]:
    """Append bytes to the newest segment. All usages stay readable."""
    del server
    (flusher,) = stack.flushers
    flusher.stop()
    segment = max(find_segments(stack.archive), key=lambda path: path.name)
    segment.write_bytes(segment.read_bytes() + b"no frame")
    flusher.start()
    yield


FAULTS: dict[Fault, tuple[str, ...]] = {
    add_foreign_entry: ("BusyapiUsagesQuarantined",),
    damage_segment: ("BusyapiArchiveDamaged",),
    mount_wrong_volume: ("BusyapiFlusherHalted",),
    kill_redis: ("BusyapiRedisUnreachable", "BusyapiFlusherStuck"),
    weaken_redis: ("BusyapiDurabilityNotMet",),
    empty_redis: ("BusyapiEpochJump",),
}
FULL = "BusyapiArchiveDiskFull"
HALTED = "BusyapiFlusherHalted"


def test_every_fault_that_a_page_shows_is_simulated() -> None:
    simulated = {FULL, *(name for names in FAULTS.values() for name in names)}
    assert simulated == {name for name, blocks in FAULT_BLOCKS.items() if blocks}


def find_missing_output(page: Page, shell: StackShell) -> list[str]:
    """Return the lines that a page shows and its commands do not print."""
    blocks = FAULT_BLOCKS[page.name]
    return [line for block in blocks for line in block.missing(shell.run(block.text).output)]


def wait_until_shown(name: str, shell: StackShell) -> None:
    """Wait until the page's commands print everything that it shows."""
    wait_until(
        lambda: not find_missing_output(PAGES[name], shell), name, seconds=DETECT_SECONDS, every=0.3
    )


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_pages_show_the_output_during_the_fault(
    fault: Fault, running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
    for name in FAULTS[fault]:
        assert find_missing_output(PAGES[name], shell)  # not before the fault
    with fault(stack, server):
        for name in FAULTS[fault]:
            wait_until_shown(name, shell)
    for process in stack.processes:
        process.wait_until_ready()


def test_page_shows_the_output_on_a_full_volume(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    settings = {"BUSYAPI_ARCHIVE_DIR": str(volume)}
    with (
        mount_small_volume(volume, "512k"),
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server, settings=settings) as stack,
    ):
        shell = StackShell(tmp_path / "bin", stack, server, volume)
        assert find_missing_output(PAGES[FULL], shell)
        fill_volume(volume)
        check_stored(send(stack.port, {**USAGE, "note": token_hex(10_000)}))
        wait_until_shown(FULL, shell)


def copy_off_and_remove(
    page: Page, file: Path, path: str, shell: StackShell, *, word: str = "FILE_PATH"
) -> None:
    """Run the blocks of a page that copy a file off the volume and remove it."""
    content = file.read_bytes()
    (copies,) = page.of("sh", "reads")
    (removes,) = (block for block in page.of("sh", "decides") if "-- rm " in block.text)
    result = shell.run(copies.text.replace(word, path))
    assert result.failures == []
    first, second = (line.split()[0] for line in result.output.splitlines() if line)
    assert first == second == sha256(content).hexdigest()
    assert file.exists()
    assert shell.run(removes.text.replace(word, path)).failures == []
    assert not file.exists()
    (copy,) = (path for path in shell.folder.glob("*.tar") if has_content(path, content))
    copy.unlink()


def has_content(tar: Path, content: bytes) -> bool:
    return content in subprocess.check_output(["tar", "-xOf", tar], timeout=20)


def test_damaged_file_is_copied_and_removed_as_its_page_says(
    running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    (flusher,) = stack.flushers
    shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
    if not list(stack.archive.rglob("*.damaged")):
        with damage_segment(stack, server):
            assert flusher.read_metric("busyapi_archive_damaged_files") == 1
    (damaged,) = stack.archive.rglob("*.damaged")
    path = str(damaged.relative_to(stack.archive))
    page = PAGES["BusyapiArchiveDamaged"]
    copy_off_and_remove(page, damaged, path, shell, word="PATH.damaged")
    flusher.restart()
    assert flusher.read_metric("busyapi_archive_damaged_files") == 0
    assert "no problem found" in shell.run("busyapi archive verify").output


def test_foreign_file_is_copied_and_removed_as_its_page_says(
    running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
    foreign = stack.archive / "old.tar"
    foreign.write_bytes(b"not of the archive")
    path = str(foreign.relative_to(stack.archive.parent))
    (copies,) = PAGES[FULL].of("sh", "reads")
    result = shell.run(copies.text.replace("FILE_PATH", path))
    assert result.failures == []
    assert foreign.name in result.output
    (removes,) = (b for b in PAGES[FULL].of("sh", "decides") if "rm -r" in b.text)
    assert shell.run(removes.text.replace("FILE_PATH", path)).failures == []
    assert not foreign.exists()
    assert has_content(shell.folder / "foreign.tar", b"not of the archive")


def test_quarantine_file_is_copied_as_its_page_says(
    running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    shell = StackShell(tmp_path / "bin", stack, server, stack.archive)
    count = len(list(stack.archive.rglob("quarantine-*.bin")))
    with add_foreign_entry(stack, server):
        wait_until(
            lambda: len(list(stack.archive.rglob("quarantine-*.bin"))) > count,
            "the quarantine file",
        )
    (copies,) = (b for b in PAGES["BusyapiUsagesQuarantined"].of("sh") if "$WORK/" in b.text)
    result = shell.run(copies.text)
    assert result.failures == []
    for file in stack.archive.rglob("quarantine-*.bin"):
        assert file.name in result.output
        assert has_content(shell.folder / "quarantine.tar", file.read_bytes())


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[tuple[Stack, StackShell]]:
    """Start a stack of its own, with three blocks in one finished segment."""
    with Server(tmp_path / "redis") as server, Stack(tmp_path / "stack", server) as stack:
        for _ in range(3):
            check_stored(send(stack.port, USAGE))
            stack.wait_until_archived()
        stack.flushers[0].restart()
        yield stack, StackShell(tmp_path / "bin", stack, server, stack.archive)


def find_block(test: str) -> str:
    """Return the block of BusyapiFlusherHalted that names this test."""
    blocks = PAGES[HALTED].of("sh", "decides")
    (text,) = (block.text for block in blocks if block.marks[1].endswith(f"::{test}"))
    return text


def wait_until_halted(stack: Stack, message: str) -> None:
    """Wait until the flusher reports a message."""
    (flusher,) = stack.flushers
    wait_until(lambda: message in flusher.log.read_text(), message)


def test_conflicting_file_is_moved_off_as_its_page_says(
    stack: tuple[Stack, StackShell], tmp_path: Path
) -> None:
    processes, shell = stack
    (flusher,) = processes.flushers
    flusher.stop()
    (segment,) = find_segments(processes.archive)
    good = segment.read_bytes()
    segment.write_bytes(good[:80] + bytes([good[80] ^ 0xFF]) + good[81:])  # in the first block
    flusher.spawn()
    wait_until_halted(processes, "seqs 1 to 1 are missing")
    (tmp_path / segment.name).write_bytes(good)
    put_back(segment, tmp_path, shell)
    assert segment.read_bytes() == good
    wait_until_halted(processes, "hold the same seqs")
    for file in sorted(set(segment.parent.glob("usages-*")) - {segment}):
        path = str(file.relative_to(processes.archive))
        copy_off_and_remove(PAGES[HALTED], file, path, shell)
    flusher.wait_until_ready()
    assert "no problem found" in shell.run("busyapi archive verify").output


def put_back(segment: Path, backup: Path, shell: StackShell) -> None:
    """Run the blocks of the page that copy a file from a backup to its place."""
    page = PAGES[HALTED]
    (copies,) = (block for block in page.of("sh", "changes") if "cp FILE" in block.text)
    (moves,) = (block for block in page.of("sh", "decides") if "/FILE /var" in block.text)
    for block in (copies, moves):
        text = block.text.replace("FILE", segment.name).replace("DAY", segment.parent.name)
        assert shell.run(f"cd {backup}\n{text}").failures == []


def test_identity_is_put_back_as_its_page_says(
    stack: tuple[Stack, StackShell], tmp_path: Path
) -> None:
    processes, shell = stack
    (flusher,) = processes.flushers
    identity = processes.archive / "p00" / "partition.json"
    flusher.stop()
    good = identity.read_text()
    (tmp_path / "partition.json").write_text(good)
    identity.write_text(good.replace('"bound": ', '"bound": 1'))
    assert identity.read_text() != good
    flusher.spawn()
    wait_until_halted(processes, "its checksum does not match")
    text = find_block("test_identity_is_put_back_as_its_page_says")
    assert shell.run(f"cd {tmp_path}\n{text}").failures == []
    flusher.wait_until_ready()
    # Only the time differs at which the file system created it, and so the checksum.
    assert f'"bound": {json.loads(good)["bound"]},' in identity.read_text()
    check_stored(send(processes.port, USAGE))
    processes.wait_until_archived()


def test_open_segment_is_copied_as_its_page_says(stack: tuple[Stack, StackShell]) -> None:
    """`dd` pads the copy to whole sectors, as after a bad sector. No usage is lost by that."""
    processes, shell = stack
    (flusher,) = processes.flushers
    number = check_stored(send(processes.port, USAGE))
    processes.wait_until_archived()
    flusher.kill9()
    (segment,) = find_open_segments(processes.archive)
    assert segment.stat().st_size % 512
    text = find_block("test_open_segment_is_copied_as_its_page_says")
    assert shell.run(text.replace("OPEN", str(segment))).failures == []
    assert segment.stat().st_size % 512 == 0
    flusher.start()
    assert f'"id":{number},' in shell.run(f"busyapi archive cat --id {number}").output
    assert "no problem found" in shell.run("busyapi archive verify").output

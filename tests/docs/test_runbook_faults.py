"""During a fault, the runbooks' commands print what the runbooks show."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from testkit.api_client import USAGE, check_stored, send
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
    """Change a byte in the footer of the newest segment. All usages stay readable."""
    del server
    (flusher,) = stack.flushers
    flusher.stop()
    segment = max(stack.archive.rglob("usages-*.zst"), key=lambda path: path.name)
    content = bytearray(segment.read_bytes())
    content[-60] ^= 0xFF
    segment.write_bytes(content)
    flusher.start()
    yield


FAULTS: dict[Fault, tuple[str, ...]] = {
    add_foreign_entry: ("BusyapiUsagesQuarantined",),
    damage_segment: ("BusyapiArchiveDamaged",),
    mount_wrong_volume: ("BusyapiFlusherHalted",),
    kill_redis: ("BusyapiRedisUnreachable", "BusyapiFlusherStuck"),
    weaken_redis: ("BusyapiDurabilityNotHeld",),
    empty_redis: ("BusyapiEpochJump",),
}
FULL = "BusyapiArchiveDiskFull"


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
    (block,) = PAGES["BusyapiArchiveDamaged"].of("sh", "decides")
    copy = tmp_path / "damaged.tar"
    text = block.text.replace("PATH.damaged", str(damaged.relative_to(stack.archive)))
    assert shell.run(text.replace("> damaged.tar", f"> {copy}")).failures == []
    assert not damaged.exists()
    assert damaged.name in subprocess.check_output(["tar", "-tf", copy], text=True, timeout=20)
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
    (block,) = (b for b in PAGES[FULL].of("sh", "decides") if "rm -r" in b.text)
    copy = tmp_path / "foreign.tar"
    text = block.text.replace("PATH", str(foreign.relative_to(stack.archive.parent)))
    result = shell.run(text.replace("foreign.tar", str(copy)))
    assert result.failures == []
    assert foreign.name in result.output
    assert not foreign.exists()
    assert foreign.name in subprocess.check_output(["tar", "-tf", copy], text=True, timeout=20)

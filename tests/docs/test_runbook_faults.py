"""What a runbook says that one sees in a fault is what one sees when the fault is there."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import pytest

from testkit.api_client import USAGE, send, stored
from testkit.docs.runbook_shell import OnStack
from testkit.docs.runbooks import RECOVERY, Page
from testkit.processes import Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.docs.test_runbook_commands import PAGES, WELL

SEEN = {
    name: [each for each in page.blocks if each.expected and each.section != RECOVERY]
    for name, page in PAGES.items()
    if name not in WELL
}
"""What each page says of its fault."""

SEE_SECONDS = 60.0
Fault = Callable[[Stack, Server], AbstractContextManager[None]]


@contextmanager
def redis_gone(stack: Stack, server: Server) -> Iterator[None]:
    """Kill the server, and start it again."""
    del stack
    server.kill9()
    yield
    server.start()


@contextmanager
def redis_weak(stack: Stack, server: Server) -> Iterator[None]:
    """Have it fsync once a second, for a while."""
    del stack
    server.client().config_set("appendfsync", "everysec")
    yield
    server.client().config_set("appendfsync", "always")


@contextmanager
def redis_emptied(stack: Stack, server: Server) -> Iterator[None]:
    """Delete all that it holds."""
    del stack
    server.client().flushall()
    yield


@contextmanager
def entry_of_another(stack: Stack, server: Server) -> Iterator[None]:
    """Put into the stream what no API process writes."""
    del stack
    last = int(server.command("INCRBY", "busyapi:{0}:seq", 1))
    server.client().xadd("busyapi:{0}:stream", {"u": b"no entry of ours"}, id=f"{last}-1")
    yield


@contextmanager
def volume_of_another(stack: Stack, server: Server) -> Iterator[None]:
    """Mount an empty volume, and then the right one."""
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
def segment_damaged(stack: Stack, server: Server) -> Iterator[None]:
    """Change a byte of the newest segment's footer: each usage can still be read."""
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
    entry_of_another: ("BusyapiUsagesQuarantined",),
    segment_damaged: ("BusyapiArchiveDamaged",),
    volume_of_another: ("BusyapiFlusherHalted",),
    redis_gone: ("BusyapiRedisUnreachable", "BusyapiFlusherStuck"),
    redis_weak: ("BusyapiDurabilityNotHeld",),
    redis_emptied: ("BusyapiEpochJump",),
}
FULL = "BusyapiArchiveDiskFull"


def test_every_fault_that_a_page_shows_is_made() -> None:
    made = {FULL, *(name for names in FAULTS.values() for name in names)}
    assert made == {name for name, blocks in SEEN.items() if blocks}


def unseen(page: Page, shell: OnStack) -> list[str]:
    """Tell what the page's commands do not print of what it says."""
    blocks = SEEN[page.name]
    return [line for block in blocks for line in block.missing(shell.run(block.text).output)]


def wait_until_seen(name: str, shell: OnStack) -> None:
    """Wait until the page's commands print all that it says."""
    wait_until(lambda: not unseen(PAGES[name], shell), name, seconds=SEE_SECONDS, every=0.3)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_looks_as_its_pages_say(
    fault: Fault, running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    shell = OnStack(tmp_path / "bin", stack, server, stack.archive)
    for name in FAULTS[fault]:
        assert unseen(PAGES[name], shell)  # before it there is nothing to see
    with fault(stack, server):
        for name in FAULTS[fault]:
            wait_until_seen(name, shell)
    for each in stack.processes:
        each.wait_until_ready()


def test_full_volume_looks_as_its_page_says(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    settings = {"BUSYAPI_ARCHIVE_DIR": str(volume)}
    with (
        small(volume),
        Server(tmp_path / "redis") as server,
        Stack(tmp_path / "stack", server, settings=settings) as stack,
    ):
        shell = OnStack(tmp_path / "bin", stack, server, volume)
        assert unseen(PAGES[FULL], shell)
        with (volume / "ballast").open("wb", 0) as ballast, suppress(OSError):
            while True:
                ballast.write(bytes(4096))
        stored(send(stack.port, {**USAGE, "note": token_hex(10_000)}))
        wait_until_seen(FULL, shell)


@contextmanager
def small(folder: Path) -> Iterator[None]:
    """Mount a tmpfs that is soon full."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "busyapi-test", str(folder)]
    subprocess.run(mount, check=True, timeout=20)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True, timeout=20)


def test_damaged_file_is_copied_off_and_moved_away_as_its_page_says(
    running: tuple[Stack, Server], tmp_path: Path
) -> None:
    stack, server = running
    (flusher,) = stack.flushers
    shell = OnStack(tmp_path / "bin", stack, server, stack.archive)
    if not list(stack.archive.rglob("*.damaged")):
        with segment_damaged(stack, server):
            assert flusher.metric("busyapi_archive_damaged_files") == 1
    (damaged,) = stack.archive.rglob("*.damaged")
    (block,) = PAGES["BusyapiArchiveDamaged"].of("sh", "decides")
    copy = tmp_path / "damaged.tar"
    text = block.text.replace("PATH.damaged", str(damaged.relative_to(stack.archive)))
    assert shell.run(text.replace("> damaged.tar", f"> {copy}")).failures == []
    assert not damaged.exists()
    assert damaged.name in subprocess.check_output(["tar", "-tf", copy], text=True, timeout=20)
    flusher.restart()
    assert flusher.metric("busyapi_archive_damaged_files") == 0
    assert "no problem found" in shell.run("busyapi archive verify").output

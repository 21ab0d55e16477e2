"""The steps of repair-valkey-aof.md, with the real program on the AOF of a real server."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from testkit.api_client import USAGE, check_stored, send
from testkit.chart.rendering import ROOT
from testkit.docs.runbooks import parse
from testkit.processes import Stack
from testkit.servers import Server, find_program
from testkit.waiting import wait_until

PAGE = ROOT / "docs" / "how-to" / "repair-valkey-aof.md"
USAGES = 300
DAMAGED_BYTES = 464
FILE = "appendonly.aof.1.incr.aof"


def find_block(mark: str) -> str:
    """Return the command of the page with this mark."""
    page = parse("repair", PAGE.read_text())
    (text,) = (block.text for block in page.blocks if block.marks == [mark])
    return text


def run(text: str, folder: Path, programs: Path) -> subprocess.CompletedProcess[str]:
    """Run commands in the folder of the AOF."""
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(
        ["bash", "-c", text],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        input="y\n",
    )


def link_program(folder: Path) -> Path:
    """Make valkey-check-aof, which is the server's binary under another name."""
    folder.mkdir()
    (folder / "valkey-check-aof").symlink_to(find_program("valkey"))
    return folder


def damage(path: Path) -> None:
    """Overwrite bytes in the middle of the AOF."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\0" * DAMAGED_BYTES)


def test_only_the_damage_is_cut_out_and_the_flusher_names_what_is_missing(tmp_path: Path) -> None:
    programs = link_program(tmp_path / "bin")
    with Server(tmp_path / "server") as server, Stack(tmp_path / "stack", server) as stack:
        check_stored(send(stack.port, USAGE))
        stack.wait_until_archived()
        (flusher,) = stack.flushers
        flusher.pause()
        for _ in range(USAGES):
            check_stored(send(stack.port, USAGE))
        server.kill9()
        log = server.folder / "appendonlydir"
        size = (log / FILE).stat().st_size
        damage(log / FILE)
        copy = shutil.copytree(log, tmp_path / "copy")

        check = run(find_block("repair-check"), log, programs)
        *_, (name, good, diff) = re.findall(
            r"filename=(\S+), size=\d+, ok_up_to=(\d+), .*diff=(\d+)", check.stdout
        )
        assert name == FILE
        # --fix cuts everything after the damage, here nearly half of the AOF.
        fix = run(f"valkey-check-aof --fix {FILE}", copy, programs)
        assert fix.returncode == 0, fix.stdout
        assert size - (copy / FILE).stat().st_size == int(diff) > 50 * DAMAGED_BYTES

        cut = find_block("repair-cut").replace("OK=0 ", f"OK={good} ")
        repair = run(cut, log, programs)
        assert repair.returncode == 0, repair.stdout + repair.stderr
        assert "is valid" in repair.stdout
        bytes_cut = size - (log / FILE).stat().st_size
        assert f"bytes cut: {bytes_cut}\n" in repair.stdout
        assert DAMAGED_BYTES <= bytes_cut < 5 * DAMAGED_BYTES
        entries = re.findall(r"^entry \w+ the cut: (\d+)-(\d+)$", repair.stdout, re.MULTILINE)
        (last_before, _), (last_after, count) = [(int(a), int(b)) for a, b in entries]
        first_after = last_after - count + 1

        server.start()
        flusher.resume()
        lost = USAGES - int(server.client().xlen("busyapi:{0}:stream"))
        assert 0 < lost < 6
        # The flusher archives what was before the damage, and names exactly what is missing.
        wait_until(lambda: "LossSuspected" in flusher.log.read_text(), "the flusher to halt")
        halted = re.search(
            r"continues at seq (\d+), but seq (\d+) is next", flusher.log.read_text()
        )
        assert halted
        assert int(halted[1]) - int(halted[2]) == lost
        assert (int(halted[1]), int(halted[2])) == (first_after, last_before + 1)

"""Where it was measured, and with what."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from perf import wrk
from testkit.servers import DURABLE, Server

IN_MEMORY = {"tmpfs", "ramfs"}


@dataclass(frozen=True)
class Machine:
    """What a reader must know to compare."""

    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    file_system: str
    """Of the folder with Valkey's data and the archive."""
    load_before: float
    """Of the last minute (getloadavg): what else ran is in the figures."""

    @property
    def on_disk(self) -> bool:
        """Whether an fsync reaches a disk."""
        return self.file_system not in IN_MEMORY


def machine(folder: Path) -> Machine:
    """Look at this one."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=cpu_model(Path("/proc/cpuinfo").read_text()),
        memory_gib=memory_gib(Path("/proc/meminfo").read_text()),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=file_system(Path("/proc/self/mounts").read_text(), folder.resolve()),
        load_before=round(os.getloadavg()[0], 2),
    )


def cpu_model(cpuinfo: str) -> str:
    """Read it from /proc/cpuinfo; ARM's has no such line."""
    found = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def memory_gib(meminfo: str) -> float:
    """Read the total from /proc/meminfo."""
    found = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return round(int(found[1]) / 2**20, 1) if found else 0.0


def file_system(mounts: str, folder: Path) -> str:
    """Read from /proc/self/mounts what kind a folder is on: the deepest mount above it."""
    kinds = {Path(fields[1]): fields[2] for line in mounts.splitlines() if (fields := line.split())}
    return next((kinds[each] for each in (folder, *folder.parents) if each in kinds), "unknown")


def versions(server: Server) -> dict[str, str]:
    """Say what ran."""
    info = server.client().info("server")
    return {
        "busyapi": version("busyapi"),
        "python": platform.python_version(),
        "sanic": version("sanic"),
        "uvloop": version("uvloop"),
        "valkey": info["valkey_version"],
        "wrk": wrk.version(),
    }


def durability(server: Server) -> dict[str, str]:
    """Ask the server itself for the lines that make it durable."""
    names = [line.partition(" ")[0] for line in DURABLE]
    return {name: str(server.client().config_get(name)[name]) for name in names}

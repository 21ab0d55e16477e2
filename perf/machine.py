"""The machine of a measurement, and the versions of the software."""

import os
import platform
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from perf import wrk
from testkit.servers import DURABLE_CONFIG, Server

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
        """Return whether an fsync reaches a disk."""
        return self.file_system not in IN_MEMORY


def machine(folder: Path) -> Machine:
    """Return what a reader must know about this machine."""
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
    match = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def memory_gib(meminfo: str) -> float:
    """Read the total from /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return round(int(match[1]) / 2**20, 1) if match else 0.0


def file_system(mounts: str, folder: Path) -> str:
    """Read from /proc/self/mounts what kind a folder is on: the deepest mount above it."""
    kinds = {Path(fields[1]): fields[2] for line in mounts.splitlines() if (fields := line.split())}
    return next((kinds[entry] for entry in (folder, *folder.parents) if entry in kinds), "unknown")


def versions(server: Server) -> dict[str, str]:
    """Return the versions of what ran."""
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
    """Ask the server for the settings that make it durable."""
    names = [line.partition(" ")[0] for line in DURABLE_CONFIG]
    return {name: str(server.client().config_get(name)[name]) for name in names}

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
    """Facts about the machine that a reader needs to compare results."""

    cores: int
    cpu: str
    memory_gib: float
    kernel: str
    file_system: str
    """The file system of the folder with Valkey's data and the archive."""
    load_before: float
    """The load of the minute before (getloadavg): other programs affect the figures."""

    @property
    def on_disk(self) -> bool:
        """Return whether an fsync reaches a disk."""
        return self.file_system not in IN_MEMORY


def describe_machine(folder: Path) -> Machine:
    """Return the facts about this machine."""
    return Machine(
        cores=len(os.sched_getaffinity(0)),
        cpu=parse_cpu_model(Path("/proc/cpuinfo").read_text()),
        memory_gib=parse_memory_gib(Path("/proc/meminfo").read_text()),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=find_file_system(Path("/proc/self/mounts").read_text(), folder.resolve()),
        load_before=round(os.getloadavg()[0], 2),
    )


def parse_cpu_model(cpuinfo: str) -> str:
    """Read the CPU's model from /proc/cpuinfo. On ARM it has no such line."""
    match = re.search(r"^model name\s*: (.+)$", cpuinfo, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def parse_memory_gib(meminfo: str) -> float:
    """Read the total memory from /proc/meminfo."""
    match = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    return round(int(match[1]) / 2**20, 1) if match else 0.0


def find_file_system(mounts: str, folder: Path) -> str:
    """Read a folder's file system from /proc/self/mounts: that of the deepest mount above it."""
    kinds = {Path(fields[1]): fields[2] for line in mounts.splitlines() if (fields := line.split())}
    return next((kinds[entry] for entry in (folder, *folder.parents) if entry in kinds), "unknown")


def versions(server: Server) -> dict[str, str]:
    """Return the versions of the software."""
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

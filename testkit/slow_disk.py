"""A disk whose fsync takes long, as that of a cloud does, for the servers of a test."""

import subprocess
from pathlib import Path

from testkit.servers import Server

_SOURCE = """
#include <sys/syscall.h>
#include <unistd.h>
int fdatasync(int file) { usleep(DELAY_US); return syscall(SYS_fdatasync, file); }
int fsync(int file) { usleep(DELAY_US); return syscall(SYS_fsync, file); }
"""


def slow_down_fsync(server: Server, milliseconds: int) -> None:
    """Let each fsync of a server take this much longer, from its next start on."""
    source, library = server.folder / "slow.c", server.folder / "slow.so"
    source.write_text(_SOURCE)
    _compile(source, library, milliseconds * 1000)
    server.argv = ["env", f"LD_PRELOAD={library}", *server.argv]


def _compile(source: Path, library: Path, delay_us: int) -> None:
    options = ("-shared", "-fPIC", f"-DDELAY_US={delay_us}")
    subprocess.run(["cc", *options, "-o", library, source], check=True, timeout=60)

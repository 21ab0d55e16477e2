"""A disk that loses what was not synced when the power is cut, for the server of a test.

kill -9 loses nothing: the kernel still writes what a process has written. So each fsync records
how long the file then was, in an attribute of the file, and a cut truncates the files to that.
"""

import os
import subprocess

from testkit.servers import Server

_ATTRIBUTE = "user.synced"
_SLOW = "slow"
_SOURCE = """
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static int sync_and_record(long call, int file) {
    struct stat before;
    if (fstat(file, &before)) return -1;
    if (!access("slow", F_OK)) usleep(1500000);
    int result = syscall(call, file);
    if (result == 0 && S_ISREG(before.st_mode)) {
        long long size = before.st_size; /* what was written meanwhile may not be synced */
        if (fsetxattr(file, "user.synced", &size, sizeof size, 0)) abort();
    }
    return result;
}

int fdatasync(int file) { return sync_and_record(SYS_fdatasync, file); }
int fsync(int file) { return sync_and_record(SYS_fsync, file); }
"""


class ForgetfulDisk:
    """The disk of a server, from the server's next start on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        source, library = server.folder / "forgetful.c", server.folder / "forgetful.so"
        source.write_text(_SOURCE)
        command = f"cc -shared -fPIC -o {library} {source}"
        subprocess.run(command.split(), check=True, timeout=60)
        server.argv = ["env", f"LD_PRELOAD={library}", *server.argv]

    def slow_down(self) -> None:
        """Let each fsync take 1.5 seconds longer, until `cut_power`."""
        (self._server.folder / _SLOW).touch()

    def cut_power(self) -> int:
        """Kill the server and lose what it has not synced; return how many bytes that is."""
        self._server.kill9()
        (self._server.folder / _SLOW).unlink(missing_ok=True)
        lost = 0
        for path in (self._server.folder / "appendonlydir").iterdir():
            size, synced = path.stat().st_size, 0
            if _ATTRIBUTE in os.listxattr(path):
                synced = int.from_bytes(os.getxattr(path, _ATTRIBUTE), "little")
            lost += max(0, size - synced)
            os.truncate(path, min(size, synced))
        return lost

"""The same open loop in C, compiled where there is a compiler: openloop.c.

At 16,667 a second Python takes most of a core, which on a small machine the service needs too, and
after a pause it catches up slowly: that would be in the latencies. What it can do without C, is
generator.py.
"""

import hashlib
import shutil
import struct
import subprocess
import tempfile
from array import array
from collections.abc import Sequence
from pathlib import Path

from loadtest.generator import OK

SOURCE = Path(__file__).with_name("openloop.c")
BUILT = SOURCE.parents[1] / "build" / "loadtest"
COMPILE_SECONDS = 60.0
MORE_SECONDS = 30.0

_outcome = struct.Struct("dqii")


def compiled() -> Path | None:
    """Return the program, made once for each version of the source; None without a compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = BUILT / f"openloop-{digest}"
    if not program.exists():
        BUILT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=BUILT) as folder:
            part = Path(folder) / "openloop"
            command = [compiler, "-O2", "-o", str(part), str(SOURCE)]
            subprocess.run(command, check=True, timeout=COMPILE_SECONDS)
            # Renamed when it is whole: two runs may compile at once.
            part.rename(program)
    return program


class Native:
    """One run; has what a Generator has."""

    def __init__(
        self,
        host: str,
        port: int,
        requests: Sequence[bytes],
        due: "array[float]",
        connections: int,
        *,
        program: Path,
    ) -> None:
        self.due = due
        self.outcomes = array("b")
        self.statuses = array("h")
        self.latencies = array("d")
        self.ids = array("q")
        self.longest_queue = 0
        self.reopened = 0
        self.elapsed = 0.0
        self._command = [str(program), host, str(port)]
        self._requests = requests
        self._connections = connections

    def run(self, grace: float) -> None:
        """Send all, and wait for the last answers so many seconds at most."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            texts = (struct.pack("I", len(request)) + request for request in self._requests)
            (folder / "requests").write_bytes(b"".join(texts))
            (folder / "due").write_bytes(self.due.tobytes())
            files = [str(folder / entry) for entry in ("requests", "due")]
            last = [str(self._connections), str(grace), str(folder / "out")]
            done = subprocess.run(
                [*self._command, *files, *last],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=self.due[-1] + grace + MORE_SECONDS,
            )
            self._read((folder / "out").read_bytes())
        elapsed, longest, reopened = done.stdout.split()
        self.elapsed, self.longest_queue, self.reopened = (
            float(elapsed),
            int(longest),
            int(reopened),
        )

    def _read(self, out: bytes) -> None:
        for latency, usage, status, what in _outcome.iter_unpack(out):
            self.latencies.append(latency)
            self.statuses.append(status)
            self.outcomes.append(what)
            if what == OK:
                self.ids.append(usage)

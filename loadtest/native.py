"""The open loop in C (openloop.c), used if a compiler is installed.

At 16,667 requests a second Python takes most of a core, which the service also needs on a small
machine. After a pause it catches up slowly, which would be in the latencies. Without a compiler,
generator.py is used.
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
COMPILE_SPARE_SECONDS = 30.0

_outcome = struct.Struct("dqii")


def compile_program() -> Path | None:
    """Compile each version of the source once; return the program, or None without a compiler."""
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
            # Rename it when it is complete: two runs may compile at the same time.
            part.rename(program)
    return program


class Native:
    """One run, with the attributes of a Generator."""

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
        self.started = 0.0
        self._command = [str(program), host, str(port)]
        self._requests = requests
        self._connections = connections

    def run(self, grace: float) -> None:
        """Send all requests, and wait at most `grace` seconds for the last answers."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            texts = (struct.pack("I", len(request)) + request for request in self._requests)
            (folder / "requests").write_bytes(b"".join(texts))
            (folder / "due").write_bytes(self.due.tobytes())
            files = [str(folder / entry) for entry in ("requests", "due")]
            last = [str(self._connections), str(grace), str(folder / "out")]
            process = subprocess.run(
                [*self._command, *files, *last],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                timeout=self.due[-1] + grace + COMPILE_SPARE_SECONDS,
            )
            self._read((folder / "out").read_bytes())
        elapsed, longest, reopened, started = process.stdout.split()
        self.elapsed, self.started = float(elapsed), float(started)
        self.longest_queue, self.reopened = int(longest), int(reopened)

    def _read(self, out: bytes) -> None:
        for latency, usage, status, what in _outcome.iter_unpack(out):
            self.latencies.append(latency)
            self.statuses.append(status)
            self.outcomes.append(what)
            if what == OK:
                self.ids.append(usage)

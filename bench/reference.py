"""The no-op as a contender."""

import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

from bench.noop import LISTENING
from perf.contender import Contender
from testkit.child_process import Child
from testkit.ports import reserve_port
from testkit.waiting import wait_until

START_SECONDS = 30.0


class Noop(Contender):
    """`bench.noop` in one or more processes on one port."""

    def __init__(self, folder: Path, processes: int) -> None:
        folder.mkdir(parents=True)
        self.port = reserve_port()
        argv = [sys.executable, "-m", "bench.noop", "--port", str(self.port)]
        self._children = {
            f"noop-{n}": Child(argv, log=folder / f"noop-{n}.log") for n in range(processes)
        }

    @property
    def processes(self) -> dict[str, Child]:
        """Return the processes."""
        return self._children

    def versions(self) -> dict[str, str]:
        """Return the versions of the software."""
        return {"sanic": version("sanic")}

    def start(self) -> None:
        """Start all processes and wait until each reports that it listens."""
        for child in self._children.values():
            child.spawn()
        for child in self._children.values():
            wait_until(partial(_listens, child), f"{child} to listen", seconds=START_SECONDS)

    def close(self) -> None:
        """Stop all."""
        for child in self._children.values():
            child.close()


def _listens(child: Child) -> bool:
    return child.check_alive() and LISTENING in child.log.read_text()

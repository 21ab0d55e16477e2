"""A stack on a small volume of its own, under load, with a Prometheus that looks at it."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from testkit.load import Load
from testkit.processes import Flusher, Stack
from testkit.prometheus import Prometheus
from testkit.proxy import Proxy
from testkit.servers import Server


class MonitoredStack(NamedTuple):
    """What a fault is made in."""

    server: Server
    proxy: Proxy
    """Between the stack and the server."""
    stack: Stack
    prometheus: Prometheus

    @property
    def flusher(self) -> Flusher:
        """The one there is."""
        return self.stack.flushers[0]

    @contextmanager
    def fault(self, *alerts: str, seconds: float = 30.0) -> Iterator[None]:
        """Make a fault in the `with`: none of these fires before, each after it."""
        self.prometheus.wait_until_resolved(*alerts, seconds=90.0)
        yield
        self.prometheus.wait_until_firing(*alerts, seconds=seconds)

    @contextmanager
    def load(self, connections: int = 2, *, rest: float = 0.02, **options: Any) -> Iterator[Load]:
        """Post all the time, but no more than an alert needs: Prometheus has to keep up."""
        with Load(self.stack.port, connections=connections, rest=rest, **options) as load:
            yield load


@contextmanager
def observed(
    folder: Path, rules: Mapping[str, Any], size: str = "8m", **settings: str
) -> Iterator[MonitoredStack]:
    """Run all of it."""
    with ExitStack() as running:
        stack_folder = folder / "stack"
        (stack_folder / "archive").mkdir(parents=True)
        running.enter_context(small_volume(stack_folder / "archive", size))
        server = running.enter_context(Server(folder / "valkey"))
        proxy = running.enter_context(Proxy(server.port))
        settings = {"BUSYAPI_REDIS_URL": proxy.url, **settings}
        stack = running.enter_context(Stack(stack_folder, server, settings=settings))
        prometheus = Prometheus(folder / "prometheus", stack, rules)
        yield MonitoredStack(server, proxy, stack, running.enter_context(prometheus))


@contextmanager
def small_volume(folder: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of this size, and take it away again."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "busyapi-test", str(folder)],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip(f"cannot mount: {made.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take what is left of a volume; removing the file that is returned gives it back."""
    ballast = folder / "ballast"
    with ballast.open("wb", 0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast

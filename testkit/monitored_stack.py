"""A stack on a small volume of its own, under load, with a Prometheus that looks at it."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from testkit.load import Load
from testkit.processes import Flusher, Stack
from testkit.prometheus import Prometheus
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.volume import mount_small_volume


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
def run_monitored_stack(
    folder: Path, rules: Mapping[str, Any], size: str = "8m", **settings: str
) -> Iterator[MonitoredStack]:
    """Run all of it."""
    with ExitStack() as running:
        stack_folder = folder / "stack"
        running.enter_context(mount_small_volume(stack_folder / "archive", size))
        server = running.enter_context(Server(folder / "valkey"))
        proxy = running.enter_context(Proxy(server.port))
        settings = {"BUSYAPI_REDIS_URL": proxy.url, **settings}
        stack = running.enter_context(Stack(stack_folder, server, settings=settings))
        prometheus = Prometheus(folder / "prometheus", stack, rules)
        yield MonitoredStack(server, proxy, stack, running.enter_context(prometheus))

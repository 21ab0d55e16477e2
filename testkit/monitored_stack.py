"""A stack on its own small volume, under load, with a Prometheus that scrapes it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from testkit.lake_process import LakeProcess
from testkit.load import Load
from testkit.processes import Flusher, Stack
from testkit.prometheus import Prometheus, Targets
from testkit.proxy import Proxy
from testkit.replicated import UNPROMOTABLE
from testkit.servers import Server
from testkit.volume import mount_small_volume

QUIET_SECONDS = 3.0


class MonitoredStack(NamedTuple):
    """The parts in which a test injects a fault."""

    server: Server
    proxy: Proxy
    """Between the stack and the server."""
    stack: Stack
    prometheus: Prometheus
    replicas: list[Server]

    @property
    def flusher(self) -> Flusher:
        """The only flusher."""
        return self.stack.flushers[0]

    @contextmanager
    def fault(self, *alerts: str, seconds: float = 30.0) -> Iterator[None]:
        """Wait until none of these alerts fires before the `with`, and until all fire after it."""
        self.prometheus.wait_until_resolved(*alerts, seconds=90.0)
        yield
        self.prometheus.wait_until_firing(*alerts, seconds=seconds)

    def expect_quiet(self, *alerts: str, seconds: float = QUIET_SECONDS) -> None:
        """Watch for some evaluations that none of these fires, while another names the cause.

        Raises:
            AssertionError: One fires.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            firing = self.prometheus.firing() & set(alerts)
            assert not firing, firing
            time.sleep(0.2)

    @contextmanager
    def load(
        self, connections: int = 2, *, pause_after_201: float = 0.02, **options: Any
    ) -> Iterator[Load]:
        """Post all the time, but only as much as an alert needs: Prometheus must keep up."""
        with Load(
            self.stack.port, connections=connections, pause_after_201=pause_after_201, **options
        ) as load:
            yield load


@contextmanager
def run_monitored_stack(
    folder: Path,
    rules: Mapping[str, Any],
    size: str = "8m",
    replicas: int = 0,
    /,
    **settings: str,
) -> Iterator[MonitoredStack]:
    """Run all parts, also `busyapi lake` if the settings have a warehouse."""
    with ExitStack() as parts:
        stack_folder = folder / "stack"
        parts.enter_context(mount_small_volume(stack_folder / "archive", size))
        config = UNPROMOTABLE if replicas else ()
        server = parts.enter_context(Server(folder / "valkey", config=config))
        copies = [
            parts.enter_context(Server(folder / f"replica-{n}", config=config, replica_of=server))
            for n in range(replicas)
        ]
        proxy = parts.enter_context(Proxy(server.port))
        settings = {"BUSYAPI_REDIS_URL": proxy.url, **settings}
        stack = parts.enter_context(Stack(stack_folder, server, settings=settings))
        lakes = []
        if "BUSYAPI_LAKE_WAREHOUSE" in settings:
            lakes.append(parts.enter_context(LakeProcess(folder, stack.archive, settings)))
        targets = Targets([*stack.processes, *lakes])
        prometheus = Prometheus(folder / "prometheus", targets, rules)
        yield MonitoredStack(server, proxy, stack, parts.enter_context(prometheus), copies)

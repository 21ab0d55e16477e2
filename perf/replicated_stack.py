"""A stack in the tier `replicated`: a primary with two replicas, and three Sentinels."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from perf.stack import BUNDLED_CONFIG, BusyapiStack
from testkit.child_process import Child
from testkit.processes import Stack
from testkit.replicated import UNPROMOTABLE
from testkit.topologies import SentinelSet
from testkit.waiting import wait_until

REPLICAS = 2
TIER = {"BUSYAPI_DURABILITY": "replicated", "BUSYAPI_REPLICAS": str(REPLICAS)}
DOWN_AFTER_MS = 10_000
"""No failover is measured, and on two busy cores a primary may be silent for more than a second."""
CONFIRM_SECONDS = 60.0


class ReplicatedStack(BusyapiStack):
    """A stack that waits for two replicas in each commit."""

    dependencies = BusyapiStack.dependencies | {
        *(f"replica-{n}" for n in range(REPLICAS)),
        *(f"sentinel-{n}" for n in range(3)),
    }

    def __init__(self, folder: Path, apis: int, settings: Mapping[str, str] | None = None) -> None:
        self.sentinels = SentinelSet(
            folder / "sentinels",
            config=[*UNPROMOTABLE, *BUNDLED_CONFIG],
            replicas=REPLICAS,
            down_after_ms=DOWN_AFTER_MS,
        )
        self.server = self.sentinels.servers[0]
        # Its settings name the Sentinels, which exist once they run.
        self._make_stack = partial(
            Stack, folder / "stack", self.sentinels, apis=apis, settings=TIER | dict(settings or {})
        )
        self._running = ExitStack()

    @property
    def processes(self) -> dict[str, Child]:
        """Return the processes, those of the API first."""
        _, *replicas = self.sentinels.servers
        return {
            **super().processes,
            **{f"replica-{n}": replica for n, replica in enumerate(replicas)},
            **{f"sentinel-{n}": sentinel for n, sentinel in enumerate(self.sentinels.sentinels)},
        }

    def start(self) -> None:
        """Start the servers, then the other parts; wait until both replicas confirm."""
        self._running.enter_context(self.sentinels)
        self.stack = self._make_stack()
        self.port = self.stack.port
        self._running.enter_context(self.stack)
        wait_until(self._has_replicas, f"{self} to have its replicas", seconds=CONFIRM_SECONDS)

    def _has_replicas(self) -> bool:
        (flusher,) = self.stack.flushers
        return flusher.read_metric("busyapi_replicas_confirming", partition="0") == REPLICAS

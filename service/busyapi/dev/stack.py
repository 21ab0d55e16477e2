"""All children, in the order in which they start and stop.

start   Valkey, then flushers and API processes together: an API process is ready when its
        partitions are seeded, which flushers do
stop    API processes, so that nothing new arrives and every accepted request is answered; then
        flushers, which archive what they have read; then Valkey
"""

import asyncio
from collections.abc import Sequence
from time import monotonic

from busyapi.dev.child import Child, Say
from busyapi.dev.folder import StateFolder
from busyapi.dev.plan import Plan
from busyapi.dev.program import api_program, flusher_program, lake_program, valkey_program
from busyapi.dev.readiness import PATIENCE_SECONDS, ReadinessMonitor

READY_SECONDS = 60.0
"""A start that takes longer has failed. A child that loads its data has no limit."""
START_POLL_SECONDS, SLOW_POLL_SECONDS = 0.05, 0.5
POLL_SECONDS = 5.0
"""Between two probes of children that are ready."""


class Stack:
    """The children of one `busyapi dev`."""

    def __init__(
        self,
        plan: Plan,
        folder: StateFolder,
        valkey_port: int,
        archive_ports: Sequence[int],
        say: Say,
    ) -> None:
        url = plan.redis_url or f"redis://127.0.0.1:{valkey_port}"
        valkeys = [] if plan.redis_url else [valkey_program(plan, folder, valkey_port)]
        environment = plan.child_environment(url, archive_ports)
        # Flushers get the largest number that there ever was.
        largest = {"BUSYAPI_PARTITIONS": str(plan.flushers)}
        flushers = [
            flusher_program(plan, folder, environment | largest, partition, port)
            for partition, port in enumerate(archive_ports)
        ]
        apis = [api_program(plan, folder, environment, n) for n in range(plan.processes)]
        lakes = [lake_program(plan, folder, environment)] if plan.has_lake else []
        self._valkey = [Child(program, folder, say) for program in valkeys]
        self._flushers = [Child(program, folder, say) for program in flushers]
        self._apis = [Child(program, folder, say) for program in apis]
        self._lakes = [Child(program, folder, say) for program in lakes]
        groups = (self._valkey, self._flushers, self._apis, self._lakes)
        self.ready = asyncio.Event()
        """Set once all children have been ready at the same time."""
        self._monitor = ReadinessMonitor(groups, folder.archive, say)

    @property
    def children(self) -> list[Child]:
        """Return all children, in the order of their start."""
        return [*self._valkey, *self._flushers, *self._apis, *self._lakes]

    @property
    def restarts(self) -> int:
        """Return how often a child was restarted."""
        return sum(child.restarts for child in self.children)

    async def start(self) -> None:
        """Start all children; return when all are ready, or one is halted until an operator acts.

        Raises:
            DidNotStart: one ended or took too long.
        """
        for group in (self._valkey, [*self._flushers, *self._apis, *self._lakes]):
            for child in group:
                await child.start()
            await self._wait_until_ready()

    async def _wait_until_ready(self) -> None:
        began = deadline_from = monotonic()
        while not await self._monitor.poll() and not self._monitor.is_halted:
            for child in self.children:
                child.require_running()
            if self._monitor.is_loading:
                deadline_from = monotonic()
            elif monotonic() - deadline_from > READY_SECONDS:
                raise self._timed_out()
            is_slow = monotonic() - began > PATIENCE_SECONDS
            await asyncio.sleep(SLOW_POLL_SECONDS if is_slow else START_POLL_SECONDS)

    def _timed_out(self) -> Exception:
        child = next(child for child in self.children if self._monitor.reason(child))
        reason = self._monitor.reason(child)
        return child.make_start_error(f"is not ready after {READY_SECONDS:.0f} s: {reason}")

    async def run_forever(self) -> None:
        """Restart each child that ends, and print which are not ready, until this is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for child in self.children:
                tasks.create_task(child.run_forever())
            tasks.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            if is_ready := await self._monitor.poll():
                self.ready.set()
            await asyncio.sleep(POLL_SECONDS if is_ready else SLOW_POLL_SECONDS)

    async def stop(self) -> bool:
        """End all children; return whether all ended cleanly by themselves.

        The caller has cancelled `run_forever`: nothing may start a child meanwhile.
        """
        stopped_cleanly = [
            await _stop(group) for group in (self._apis, self._lakes, self._flushers, self._valkey)
        ]
        return all(stopped_cleanly)

    def kill(self) -> None:
        """End all children at once."""
        for child in self.children:
            child.kill()


async def _stop(group: Sequence[Child]) -> bool:
    return all(await asyncio.gather(*(child.stop() for child in group)))

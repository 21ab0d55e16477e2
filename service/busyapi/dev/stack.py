"""All children: in which order they start and stop.

start   Valkey, then flushers and API processes together: an API is ready when its partitions
        are seeded, which flushers do
stop    API processes, so that nothing new comes in and every accepted request is answered;
        then flushers, which archive what they have read; then Valkey
"""

import asyncio
from collections.abc import Sequence

from busyapi.dev import program
from busyapi.dev.child import Child, Say
from busyapi.dev.folder import StateFolder
from busyapi.dev.plan import Plan


class Stack:
    """The children of one `busyapi dev`."""

    def __init__(self, plan: Plan, folder: StateFolder, valkey_port: int, say: Say) -> None:
        url = plan.redis_url or f"redis://127.0.0.1:{valkey_port}"
        ours = [] if plan.redis_url else [program.valkey(plan, folder, valkey_port)]
        flushers = [program.flusher(plan, folder, url, p) for p in range(plan.partitions)]
        apis = [program.api(plan, folder, url, n) for n in range(plan.processes)]
        self._say = say
        self._valkey = [Child(each, folder, say) for each in ours]
        self._flushers = [Child(each, folder, say) for each in flushers]
        self._apis = [Child(each, folder, say) for each in apis]

    @property
    def children(self) -> list[Child]:
        """All of them."""
        return [*self._valkey, *self._flushers, *self._apis]

    @property
    def restarts(self) -> int:
        """How often a child was started again."""
        return sum(each.restarts for each in self.children)

    async def start(self) -> None:
        """Start all and wait until each is ready.

        Raises:
            DidNotStart: one ended or took too long.
        """
        for group in (self._valkey, [*self._flushers, *self._apis]):
            for each in group:
                await each.start()
            try:
                async with asyncio.TaskGroup() as waiting:
                    for each in group:
                        waiting.create_task(self._until_ready(each))
            except ExceptionGroup as failed:
                # One that cannot run keeps others waiting: the first to fail says why.
                raise failed.exceptions[0] from None

    async def _until_ready(self, child: Child) -> None:
        await child.until_ready()
        self._say(f"{child.name} is ready on {child.program.place}")

    async def keep(self) -> None:
        """Start again whichever dies, until this is cancelled."""
        async with asyncio.TaskGroup() as keepers:
            for each in self.children:
                keepers.create_task(each.keep())

    async def stop(self) -> bool:
        """End all; tell whether all ended well by themselves. Nothing may start any meanwhile."""
        well = [await _stop(group) for group in (self._apis, self._flushers, self._valkey)]
        return all(well)

    def kill(self) -> None:
        """End all at once."""
        for each in self.children:
            each.kill()


async def _stop(group: Sequence[Child]) -> bool:
    return all(await asyncio.gather(*(each.stop() for each in group)))

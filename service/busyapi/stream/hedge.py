"""Asking nodes of which any may know the answer, and any may be silent."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

HEAD_START_SECONDS = 0.2
"""How long a node may take before the next one is asked too. The node of a lost server is silent
until a timeout, and every process that looks for the new primary may begin with it."""

_Node = TypeVar("_Node")
_Answer = TypeVar("_Answer")


async def ask_in_turn(
    nodes: Iterable[_Node], ask: Callable[[_Node], Awaitable[_Answer | None]]
) -> _Answer | None:
    """Return the first answer that is not None, None if no node has one.

    A node is asked when the one before it has failed, or is late. `ask` never raises.
    """
    left = list(nodes)
    pending: set[asyncio.Future[_Answer | None]] = set()
    try:
        while left or pending:
            if left:
                pending.add(asyncio.ensure_future(ask(left.pop(0))))
            done, pending = await asyncio.wait(
                pending,
                timeout=HEAD_START_SECONDS if left else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                if (answer := task.result()) is not None:
                    return answer
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    return None

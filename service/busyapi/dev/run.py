"""`busyapi dev`: start in order, show what happens, stop in order.

start   Valkey, flushers, API processes: each when the one before is ready
stop    API processes (they answer what they took), flushers, Valkey
"""

import asyncio
import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from busyapi.dev import parts
from busyapi.dev.child import Child
from busyapi.dev.parts import Plan
from busyapi.errors import BusyapiError, ConfigError

LOCK_SECONDS = 15.0
STOP_SECONDS = 25.0
LINE_SECONDS = 10.0
"""Between status lines when nobody looks at a terminal."""
CURL = """\
curl -X POST -H "Content-Type: application/json" \
--data '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",\
"medication":"Albuterol"}' http://localhost:%d/api/usages"""


class StateInUse(BusyapiError):
    """The state folder is in use."""


def lock(state: Path) -> int:
    """Take the state folder; give the lock's descriptor, which children inherit.

    Processes of a run that was killed are on their way out: they are waited for.

    Raises:
        StateInUse: another `busyapi dev` runs on it.
    """
    state.mkdir(parents=True, exist_ok=True)
    held = os.open(state / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    until = monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise StateInUse(
                    f"{state} is in use by another busyapi dev: stop that, or give --state"
                ) from None
            time.sleep(0.1)
        else:
            return held


def check_ports(plan: Plan) -> None:
    """See that every port is free.

    Raises:
        ConfigError: one is not; the message says which setting moves it.
    """
    wanted = [(plan.port, "--port")]
    first = plan.settings.metrics_port
    wanted += [(first + n, "BUSYAPI_METRICS_PORT") for n in range(plan.processes)]
    first = plan.settings.flusher_port
    wanted += [(first + p, "BUSYAPI_FLUSHER_PORT") for p in range(plan.partitions)]
    for port, setting in wanted:
        if parts.taken(port):
            raise ConfigError(f"port {port} is taken: stop what listens there, or set {setting}")


async def run(plan: Plan) -> int:
    """Run everything until Ctrl-C or SIGTERM; give the exit code."""
    stopping = asyncio.Event()
    groups: list[list[Child]] = []

    def interrupt() -> None:
        if stopping.is_set():
            for child in (each for group in groups for each in group):
                child.kill()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupt)
    status = asyncio.ensure_future(_start_and_show(plan, groups))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([status, stopped], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.set()
        status.cancel()
        await asyncio.wait([status])
        _say("\nstopping: every accepted usage is answered first")
        await _stop(groups)
    if not status.cancelled() and (error := status.exception()):
        raise error
    _say("stopped")
    return 0


async def _start_and_show(plan: Plan, groups: list[list[Child]]) -> None:
    redis = plan.redis
    if not redis:
        server, redis = parts.valkey(plan)
        await _start(groups, [server])
    await _start(groups, parts.flushers(plan, redis))
    await _start(groups, parts.apis(plan, redis))
    _say(f"""
post a usage:    {CURL % plan.port}
look at it:      http://localhost:{plan.port}/
archive:         {plan.archive}
prove it whole:  {_program()} archive verify --dir {plan.archive}
stop:            Ctrl-C
""")
    await _show(plan, groups)


async def _start(groups: list[list[Child]], children: Sequence[Child]) -> None:
    # Known before it runs: whatever happens, it is stopped.
    groups.append(list(children))
    for child in children:
        await child.start()
        _say(f"{child.name} is ready")


async def _stop(groups: list[list[Child]]) -> None:
    for group in reversed(groups):
        await asyncio.gather(*(child.stop(STOP_SECONDS) for child in group))


async def _show(plan: Plan, groups: list[list[Child]]) -> None:
    """Say once a second, on one line, how it goes."""
    terminal = sys.stdout.isatty()
    last, then = None, monotonic()
    while True:
        await asyncio.sleep(1.0 if terminal else LINE_SECONDS)
        found, now = await parts.counts(plan.port), monotonic()
        line = "no counts: Redis or the API is starting"
        if found:
            rate = (found["count"] - last) / (now - then) if last is not None else 0.0
            line = (
                f"{rate:,.0f} usages/s   {found['count']:,} in all   "
                f"{found['buffered']:,} on the way   {found['archived']:,} archived"
            )
            last, then = found["count"], now
        again = [f"{c.name} x{c.restarts}" for group in groups for c in group if c.restarts]
        if again:
            line += f"   started again: {', '.join(again)}"
        _say(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n")


def _program() -> str:
    return "python -m busyapi" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _say(line: str, end: str = "\n") -> None:
    print(line, end=end, flush=True)  # noqa: T201 - this is what the command is for

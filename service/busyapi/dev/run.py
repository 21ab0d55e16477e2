"""The life of `busyapi dev`: lock the folder, start everything, keep it running, stop."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from time import monotonic

from busyapi.dev.command_text import format_path, format_program
from busyapi.dev.folder import StateFolder, lock_state_folder
from busyapi.dev.plan import Plan
from busyapi.dev.ports import require_free, reserve_port
from busyapi.dev.probes import fetch_counts
from busyapi.dev.screen import Screen
from busyapi.dev.stack import Stack

LIVE_SECONDS, PLAIN_SECONDS = 1.0, 10.0
"""The time between two status lines, on a terminal and elsewhere."""

USAGE = (
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}'
)


def run(plan: Plan) -> int:
    """Run all parts until Ctrl-C or SIGTERM; return the exit code.

    Raises:
        BusyapiError: it cannot start; the message says what to change.
    """
    screen = Screen(sys.stdout)
    with lock_state_folder(plan.state, screen.print_lines) as folder, ExitStack() as ports:
        valkey_port = ports.enter_context(reserve_port())
        archive_ports = [ports.enter_context(reserve_port()) for _ in range(plan.flushers)]
        folder.ensure_secret(plan.archive_secret)
        # After the folder: children of an earlier run may have held the ports until now.
        for port in plan.ports():
            require_free(port)
        stack = Stack(plan, folder, valkey_port, archive_ports, screen.print_lines)
        return asyncio.run(_run(plan, folder, stack, screen))


async def _run(plan: Plan, folder: StateFolder, stack: Stack, screen: Screen) -> int:
    work = asyncio.create_task(_run_stack(plan, folder, stack, screen))
    _handle_signals(work, stack, screen)
    await asyncio.wait([work])
    screen.clear_status()
    stopped_cleanly = await stack.stop()
    if not work.cancelled():
        work.result()  # it never returns: this raises its error
    screen.print_lines(f"stopped; all data is kept in {format_path(folder.path)}")
    return 0 if stopped_cleanly else 1


def _handle_signals(work: asyncio.Task[None], stack: Stack, screen: Screen) -> None:
    def stop() -> None:
        if work.cancel():
            screen.print_lines("stopping; press Ctrl-C again to stop at once")
        else:
            stack.kill()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Under nohup SIGHUP is ignored and must stay ignored.
        if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:
            loop.add_signal_handler(number, stop)


async def _run_stack(plan: Plan, folder: StateFolder, stack: Stack, screen: Screen) -> None:
    await stack.start()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stack.run_forever())
        await stack.ready.wait()
        screen.print_lines(_format_greeting(plan, folder))
        tasks.create_task(_show_status(plan, stack, screen))


async def _show_status(plan: Plan, stack: Stack, screen: Screen) -> None:
    """Show the number of usages and the rate at which they arrive."""
    before: tuple[float, int] | None = None
    while True:
        counts = await fetch_counts(plan.reachable_host, plan.port)
        now = monotonic()
        if counts is None:
            screen.status(f"the API returns no counts{_format_restarts(stack)}")
            before = None
        else:
            rate = (counts["count"] - before[1]) / (now - before[0]) if before else 0
            before = now, counts["count"]
            screen.status(format_status(rate, counts) + _format_restarts(stack))
        await asyncio.sleep(LIVE_SECONDS if screen.live else PLAIN_SECONDS)


def format_status(rate: float, counts: Mapping[str, int]) -> str:
    """Return the status line: usages a second, and how many there are."""
    return (
        f"{rate:,.0f}/s · {counts['count']:,} stored · {counts['archived']:,} archived"
        f" · backlog {counts['buffered']:,}"
    )


def _format_restarts(stack: Stack) -> str:
    return f" · restarts: {stack.restarts}" if stack.restarts else ""


def _format_greeting(plan: Plan, folder: StateFolder) -> str:
    url = f"http://{plan.url_host}:{plan.port}"
    archive = format_path(folder.archive)
    return f"""
Post a usage:
    curl -X POST -H "Content-Type: application/json" --data '{USAGE}' {url}/api/usages
Open the page:
    {url}/
When no usage is waiting, prove that each one is in the archive ({archive}) exactly once:
    {format_program()} archive verify --dir {archive}
Logs are in {format_path(folder.logs)}. Ctrl-C stops everything.
"""

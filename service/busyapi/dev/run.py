"""The life of `busyapi dev`: take the folder, start all, tell, keep, stop."""

import asyncio
import shlex
import signal
import sys
from pathlib import Path
from time import monotonic

from busyapi.dev.folder import StateFolder, take
from busyapi.dev.plan import Plan
from busyapi.dev.ports import held_port, refuse_taken
from busyapi.dev.probes import counts
from busyapi.dev.screen import Screen
from busyapi.dev.stack import Stack

LIVE_SECONDS, PLAIN_SECONDS = 1.0, 10.0

USAGE = (
    '{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)",'
    '"medication":"Albuterol"}'
)


def run(plan: Plan) -> int:
    """Run all parts until Ctrl-C or SIGTERM; give the exit code.

    Raises:
        BusyapiError: it cannot start; the message says what to change.
    """
    screen = Screen(sys.stdout)
    with take(plan.state, screen.say) as folder, held_port() as valkey_port:
        # After the folder: what an earlier run left behind may still have had the ports.
        for port in plan.ports():
            refuse_taken(port)
        stack = Stack(plan, folder, valkey_port, screen.say)
        return asyncio.run(_live(plan, folder, stack, screen))


async def _live(plan: Plan, folder: StateFolder, stack: Stack, screen: Screen) -> int:
    work = asyncio.create_task(_work(plan, folder, stack, screen))
    _on_signals(work, stack, screen)
    await asyncio.wait([work])
    screen.no_status()
    well = await stack.stop()
    if not work.cancelled():
        work.result()  # it can only have failed
    screen.say("stopped; what was taken is kept in " + _path(folder.path))
    return 0 if well else 1


def _on_signals(work: asyncio.Task[None], stack: Stack, screen: Screen) -> None:
    def stop() -> None:
        if work.cancel():
            screen.say("stopping; once more to stop at once")
        else:
            stack.kill()

    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup ignores the end of its terminal, and so must we then.
        if signal.getsignal(each) is not signal.SIG_IGN or each is not signal.SIGHUP:
            loop.add_signal_handler(each, stop)


async def _work(plan: Plan, folder: StateFolder, stack: Stack, screen: Screen) -> None:
    await stack.start()
    screen.say(_greeting(plan, folder))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(stack.keep())
        tasks.create_task(_report(plan, stack, screen))


async def _report(plan: Plan, stack: Stack, screen: Screen) -> None:
    """Show how many usages there are, and how fast they come."""
    before: tuple[float, int] | None = None
    while True:
        found = await counts(plan.port)
        now = monotonic()
        if found is None:
            screen.status(f"the API gives no counts; restarts {stack.restarts}")
            before = None
        else:
            speed = (found["count"] - before[1]) / (now - before[0]) if before else 0
            before = now, found["count"]
            screen.status(
                f"{speed:,.0f} usages a second, {found['count']:,} in all, backlog"
                f" {found['buffered']:,}, archived {found['archived']:,}, restarts {stack.restarts}"
            )
        await asyncio.sleep(LIVE_SECONDS if screen.live else PLAIN_SECONDS)


def _greeting(plan: Plan, folder: StateFolder) -> str:
    site = f"http://localhost:{plan.port}"
    archive = _path(folder.archive)
    return f"""
Post a usage:
    curl -X POST -H "Content-Type: application/json" --data '{USAGE}' {site}/api/usages
See what is there:
    {site}/
The archive is {archive}. Prove that it is whole:
    {_myself()} archive verify --dir {archive}
Logs are in {_path(folder.logs)}. Ctrl-C stops all of it.
"""


def _path(path: Path) -> str:
    """Give a path as a person would type it here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _myself() -> str:
    program = Path(sys.argv[0])
    return _path(program) if program.name == "busyapi" else "python -m busyapi"

"""Named places where a test can kill or stall the process, or make the disk fail.

    BUSYAPI_FAILPOINTS="archive-sync=kill@3,archive-write=enospc"

kills the process (SIGKILL) at the third hit of `archive-sync`, and fails each hit of
`archive-write` with that errno. `sleep:2` sleeps for two seconds. With `@n` the action runs only at
the n-th hit, without it at every hit.

A failpoint is not a setting: its variable is read here, when this module is imported. No other
module below the command line reads the environment. Without the variable, a failpoint costs one
call.
"""

import errno
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

VARIABLE = "BUSYAPI_FAILPOINTS"

_SPEC = re.compile(r"([\w-]+)=(kill|eio|enospc|sleep:([\d.]+))(?:@(\d+))?")


class _Action(NamedTuple):
    verb: str
    seconds: float
    hit: int
    """The only hit that runs the action; 0 means every hit."""


def parse_spec(spec: str) -> dict[str, _Action]:
    """Parse the value of the variable.

    Raises:
        ValueError: a part is not name=action or name=action@hit.
    """
    actions = {}
    for part in spec.split(","):
        match = _SPEC.fullmatch(part.strip())
        if not match:
            raise ValueError(f"{VARIABLE}: {part!r} is not name=kill|eio|enospc|sleep:S[@HIT]")
        name, verb, seconds, hit = match.groups()
        actions[name] = _Action(verb.partition(":")[0], float(seconds or 0), int(hit or 0))
    return actions


def make_failpoint(actions: dict[str, _Action]) -> Callable[[str], None]:
    """Return a failpoint function that runs these actions."""
    hits = dict.fromkeys(actions, 0)
    lock = threading.Lock()  # guards hits: worker threads and the loop use failpoints

    def hit(name: str) -> None:
        action = actions.get(name)
        if action is None:
            return
        with lock:
            hits[name] += 1
            is_due = action.hit in (0, hits[name])
        if is_due:
            _execute(action, name)

    return hit


def _execute(action: _Action, name: str) -> None:
    if action.verb == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action.verb == "sleep":
        time.sleep(action.seconds)
        return
    number = errno.EIO if action.verb == "eio" else errno.ENOSPC
    raise OSError(number, f"failpoint {name}: {os.strerror(number)}")


def _ignore(name: str, /) -> None:
    """Do nothing: no failpoint is set."""


failpoint: Callable[[str], None] = (
    make_failpoint(parse_spec(os.environ[VARIABLE])) if os.environ.get(VARIABLE) else _ignore
)

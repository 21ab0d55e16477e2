"""Named places where a test can make the process die, stall or see a failing disk.

    BUSYAPI_FAILPOINTS="archive-sync=kill@3,archive-write=enospc"

kills the process (SIGKILL) at the third hit of `archive-sync`, and fails every hit of
`archive-write` with that errno. `sleep:2` sleeps for two seconds. Without `@n` an action is taken
at every hit, with it at the n-th alone. This is the only module below the command line that reads
the environment: a failpoint is no setting, and unset it must cost nothing but a call.
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
    """At this hit alone; 0 for every one."""


def parse_spec(spec: str) -> dict[str, _Action]:
    """Read what the variable says.

    Raises:
        ValueError: a part of it is not name=action or name=action@hit.
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
    """Return a failpoint function that takes these actions."""
    hits = dict.fromkeys(actions, 0)
    counting = threading.Lock()  # guards hits: worker threads and the loop pass failpoints

    def hit(name: str) -> None:
        action = actions.get(name)
        if action is None:
            return
        with counting:
            hits[name] += 1
            now = action.hit in (0, hits[name])
        if now:
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

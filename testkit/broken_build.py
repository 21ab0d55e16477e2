"""Start processes that are broken on purpose: a checker must catch them.

A mutant replaces named parts of the package in one process, before any of them runs. The process
fails if such a part no longer exists or has other arguments, because a mutant that changes nothing
would look like a correct build.
"""

import inspect
import re
from collections.abc import Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

from busyapi.stream.scripts import Script

Mutant = Callable[[], None]

VARIABLE = "BUSYAPI_TEST_MUTANTS"
STARTUP = Path(__file__).parent / "mutant_startup"
"""A folder with a sitecustomize, which Python imports before any other module."""


class MutantTargetChanged(Exception):
    """The part that a mutant replaces does not exist, or has changed."""


def broken_build(*mutants: Mutant) -> dict[str, str]:
    """Return the settings that apply these functions of `testkit.mutants` to a process."""
    path = f"{STARTUP}:{STARTUP.parents[1]}"
    return {"PYTHONPATH": path, VARIABLE: ",".join(mutant.__name__ for mutant in mutants)}


def replace(owner: Any, name: str, new: Any) -> None:
    """Replace an attribute of a module or class by one of the same kind.

    Raises:
        MutantTargetChanged: it does not exist, has other arguments or is of another type.
    """
    where = f"{getattr(owner, '__module__', '')} {owner.__name__}.{name}"
    if name not in vars(owner):
        raise MutantTargetChanged(f"{where} does not exist")
    old = vars(owner)[name]
    if inspect.isfunction(old):
        if [*inspect.signature(old).parameters] != [*inspect.signature(new).parameters]:
            raise MutantTargetChanged(f"{where} has the arguments {inspect.signature(old)}")
        if inspect.iscoroutinefunction(old) != inspect.iscoroutinefunction(new):
            raise MutantTargetChanged(f"{where} is not awaited as its mutant is")
    elif type(old) is not type(new):
        raise MutantTargetChanged(f"{where} is of type {type(old).__name__}")
    setattr(owner, name, new)


def replace_in_script(script: Script, function: str, body: str) -> None:
    """Replace the body of a local function of a Lua script.

    Raises:
        MutantTargetChanged: the script has no such function, or more than one.
    """
    pattern = rf"^local function {function}\((.*)\)\n(?:.*\n)*?end$"
    source, count = re.subn(
        pattern,
        lambda match: f"local function {function}({match[1]})\n  {body}\nend",
        script.source.decode(),
        flags=re.MULTILINE,
    )
    if count != 1:
        raise MutantTargetChanged(f"{count} functions of a script are called {function}")
    script.source = source.encode()
    script.sha1 = sha1(script.source, usedforsecurity=False).hexdigest()

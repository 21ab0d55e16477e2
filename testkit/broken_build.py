"""Builds that are broken on purpose: a checker that does not catch them proves nothing."""

import shutil
from pathlib import Path

import busyapi

SOURCE = Path(busyapi.__file__).parent


def broken_build(folder: Path, changes: dict[str, tuple[str, str]]) -> dict[str, str]:
    """Copy the package and change its text: file -> (what stands there, what is to).

    Return the settings with which a process runs the copy.

    Raises:
        LookupError: the text is not there once: the test is older than the code.
    """
    copy = folder / "broken"
    shutil.copytree(SOURCE, copy / "busyapi", ignore=shutil.ignore_patterns("__pycache__"))
    for name, (old, new) in changes.items():
        path = copy / "busyapi" / name
        text = path.read_text()
        if text.count(old) != 1:
            raise LookupError(f"{name} has {text.count(old)} times {old!r}")
        path.write_text(text.replace(old, new))
    return {"PYTHONPATH": str(copy)}

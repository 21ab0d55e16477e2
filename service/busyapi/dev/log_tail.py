"""The end of a child's log, and the error that ended the child."""

import json
import re
from pathlib import Path

TAIL_LINES = 15
TAIL_BYTES = 65_536
"""Read from the end of a log, which may be large."""

_VALKEY = re.compile(r"\d+:[A-Z] .{20,30} (?P<level>[.*#-]) (?P<text>.*)")
_PLAIN_ERROR = re.compile(r"busyapi: |[\w.]*(Error|Exception)\b")


def read_tail(log: Path, start: int = 0) -> list[str]:
    """Return the last lines of a log, from the offset `start` on."""
    with log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(start, end - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    return [line for line in text.splitlines() if line.strip()]


def format_tail(log: Path) -> str:
    """Return the end of a log, indented."""
    lines = read_tail(log)[-TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (empty)"


def find_last_error(log: Path, start: int) -> str:
    """Return the message of the last error after the offset `start`, "" without one."""
    lines = read_tail(log, start)
    if lines and (last := _VALKEY.fullmatch(lines[-1])):
        # Valkey writes warnings at the same level: only the last line gives the reason for its end.
        return last["text"] if last["level"] == "#" else ""
    for line in reversed(lines):
        if error := _read_error(line):
            return error
    return ""


def _read_error(line: str) -> str:
    try:
        event = json.loads(line)
    except ValueError:
        return line if _PLAIN_ERROR.match(line) else ""
    if not isinstance(event, dict) or event.get("level") not in {"error", "critical"}:
        return ""
    return ": ".join(str(event[name]) for name in ("event", "detail") if name in event)

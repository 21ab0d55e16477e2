"""Nothing that is sent may be logged: at the end of a run all its logs are searched for it.

Every log is below the run's own folder, which pytest keeps until later runs.
"""

import json
from collections.abc import Iterator
from pathlib import Path

MARK = "zq7"
"""In the patient ids, the Idempotency-Keys and whatever else the tests send to processes."""
SENT_WORDS = (MARK, "albuterol", "nov 01 2016")
"""In lower case; the second and third are of the contract's curl line."""

STARTED_LOGS: set[Path] = set()
"""The logs of our processes that this run has started."""


def find_leaks(folder: Path, started: set[Path]) -> list[str]:
    """Say in which file, event and field something sent is logged, never what.

    A log that was removed or is elsewhere would not be searched, so it is named too.
    """
    logs = set(folder.rglob("*.log*"))
    found = {f"{log}: not below {folder}" for log in started - logs}
    for log in logs:
        text = log.read_text(errors="replace").lower()
        if any(word in text for word in SENT_WORDS):
            found |= {f"{log}: {place}" for line in text.splitlines() for place in _places(line)}
    return sorted(found)


def _places(line: str) -> Iterator[str]:
    try:
        fields = dict(json.loads(line))
    except (TypeError, ValueError):
        fields = {"a line that is no event": line}
    event = "?" if _sent(fields.get("event")) else fields.get("event")
    for name, value in fields.items():
        if _sent(name):
            yield f"{event}, the name of a field"
        elif _sent(value):
            yield f"{event}, {name}"


def _sent(value: object) -> bool:
    return any(word in str(value).lower() for word in SENT_WORDS)

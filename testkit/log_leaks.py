"""Search all logs of a run, at its end, for text that the tests sent: none may be logged.

Every log is below the run's own folder, which pytest keeps until later runs.
"""

import json
from collections.abc import Iterator
from pathlib import Path

MARK = "zq7"
"""A text in the patient ids, Idempotency-Keys and other values that the tests send."""
SENT_WORDS = (MARK, "albuterol", "nov 01 2016")
"""In lower case. The second and third are from the contract's curl line."""

STARTED_LOGS: set[Path] = set()
"""The logs of the busyapi processes that this run has started."""


def find_leaks(folder: Path, started: set[Path]) -> list[str]:
    """Return the file, event and field of each leak, never the leaked text.

    The result also names started logs that are not below the folder, so were not searched.
    """
    logs = set(folder.rglob("*.log*"))
    leaks = {f"{log}: not below {folder}" for log in started - logs}
    for log in logs:
        text = log.read_text(errors="replace").lower()
        if any(word in text for word in SENT_WORDS):
            leaks |= {
                f"{log}: {place}" for line in text.splitlines() for place in _find_places(line)
            }
    return sorted(leaks)


def _find_places(line: str) -> Iterator[str]:
    try:
        fields = dict(json.loads(line))
    except (TypeError, ValueError):
        fields = {"a line that is not an event": line}
    event = "?" if _has_sent_word(fields.get("event")) else fields.get("event")
    for name, value in fields.items():
        if _has_sent_word(name):
            yield f"{event}, the name of a field"
        elif _has_sent_word(value):
            yield f"{event}, {name}"


def _has_sent_word(value: object) -> bool:
    return any(word in str(value).lower() for word in SENT_WORDS)

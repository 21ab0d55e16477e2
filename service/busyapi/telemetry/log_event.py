"""The type of a row in the catalogue of log events."""

from typing import NamedTuple


class LogEvent(NamedTuple):
    """A log event: its name, level, fields, when it is logged and what to do."""

    name: str
    level: str
    fields: tuple[str, ...]
    when: str
    action: str
    optional: tuple[str, ...] = ()
    """Fields that only some lines have."""


NO_ACTION = "nothing"

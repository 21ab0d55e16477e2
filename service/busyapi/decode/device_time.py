"""Usages whose time is not plausible: they are stored, and their device gets a warning.

A device that sends seconds or microseconds instead of milliseconds, or whose clock was never set,
is wrong about the time and right about the usage. It cannot ask anybody what to change, so a
refusal would lose the usage.
"""

from typing import Any

import msgspec

from busyapi.decode.timestamp import is_plausible


class _TimeOnly(msgspec.Struct):
    timestamp: Any


_decoder = msgspec.json.Decoder(_TimeOnly)


def has_plausible_time(line: bytes) -> bool:
    """Return whether the time of a line is plausible; strict validation has accepted the line."""
    return is_plausible(_decoder.decode(line).timestamp)

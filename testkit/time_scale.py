"""Rules whose time runs faster, so that a real fault makes the real expression fire in seconds.

Windows, offsets and `for` are divided; what an expression compares, and names, stay as they are.
A window keeps a few scrapes, or `rate` would have nothing to compare.
"""

import copy
import re
from typing import Any

MIN_WINDOW_SECONDS = 5.0
"""Seconds: five scrapes of the tests."""

UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PLACES = re.compile(
    # What is quoted is no duration, whatever it looks like.
    r"(?P<quoted>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    rf"|\[\s*(?P<window>{_DURATION})\s*(?P<colon>:)?\s*(?P<step>{_DURATION})?\s*\]"
    rf"|\boffset\s+(?P<offset>{_DURATION})"
)


def parse_duration(duration: str) -> float:
    """Read a duration of Prometheus.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} is no duration")
    return sum(int(count) * UNIT_SECONDS[unit] for count, unit in _PART.findall(duration))


def _shorter(duration: str, factor: float, least: float) -> str:
    return f"{int(max(parse_duration(duration) / factor, least) * 1000)}ms"


def scale_expression(expression: str, factor: float) -> str:
    """Divide every window and offset of an expression."""

    def shorten(match: re.Match[str]) -> str:
        if match["quoted"]:
            return match["quoted"]
        if match["offset"]:
            return f"offset {_shorter(match['offset'], factor, MIN_WINDOW_SECONDS)}"
        window = _shorter(match["window"], factor, MIN_WINDOW_SECONDS)
        if not match["colon"]:
            return f"[{window}]"
        step = _shorter(match["step"], factor, 1.0) if match["step"] else "1s"
        return f"[{window}:{step}]"

    return _PLACES.sub(shorten, expression)


def scale_rules(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    """Divide every duration of a rules file; each group is evaluated every half second."""
    faster = copy.deepcopy(rules)
    for group in faster["groups"]:
        group["interval"] = "500ms"
        for rule in group["rules"]:
            rule["expr"] = scale_expression(str(rule["expr"]), factor)
            for each in ("for", "keep_firing_for"):
                if each in rule:
                    rule[each] = _shorter(rule[each], factor, 0.0)
    return faster

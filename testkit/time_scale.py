"""Speed up rules, so that a real fault makes the real expression fire in seconds.

Windows, offsets and `for` are divided. Thresholds and names stay the same. A window keeps a few
scrapes, because `rate` needs more than one.
"""

import copy
import re
from typing import Any

MIN_WINDOW_SECONDS = 5.0
"""Five scrapes of the tests."""

UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_536_000}
_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_PLACES = re.compile(
    # A quoted text is never a duration.
    r"(?P<quoted>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
    rf"|\[\s*(?P<window>{_DURATION})\s*(?P<colon>:)?\s*(?P<step>{_DURATION})?\s*\]"
    rf"|\boffset\s+(?P<offset>{_DURATION})"
)


def parse_duration(duration: str) -> float:
    """Return the seconds of a duration of Prometheus.

    Raises:
        ValueError: the text is not a duration.
    """
    if not re.fullmatch(_DURATION, duration):
        raise ValueError(f"{duration!r} is not a duration")
    return sum(int(count) * UNIT_SECONDS[unit] for count, unit in _PART.findall(duration))


def _shorten(duration: str, factor: float, min_seconds: float) -> str:
    return f"{int(max(parse_duration(duration) / factor, min_seconds) * 1000)}ms"


def scale_expression(expression: str, factor: float) -> str:
    """Divide every window and offset of an expression."""

    def replace(match: re.Match[str]) -> str:
        if match["quoted"]:
            return match["quoted"]
        if match["offset"]:
            return f"offset {_shorten(match['offset'], factor, MIN_WINDOW_SECONDS)}"
        window = _shorten(match["window"], factor, MIN_WINDOW_SECONDS)
        if not match["colon"]:
            return f"[{window}]"
        step = _shorten(match["step"], factor, 1.0) if match["step"] else "1s"
        return f"[{window}:{step}]"

    return _PLACES.sub(replace, expression)


def scale_rules(rules: dict[str, Any], factor: float) -> dict[str, Any]:
    """Divide every duration of a rules file, and evaluate each group every half second."""
    faster = copy.deepcopy(rules)
    for group in faster["groups"]:
        group["interval"] = "500ms"
        for rule in group["rules"]:
            rule["expr"] = scale_expression(str(rule["expr"]), factor)
            for field in ("for", "keep_firing_for"):
                if field in rule:
                    rule[field] = _shorten(rule[field], factor, 0.0)
    return faster

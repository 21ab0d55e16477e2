"""Scaled rules have every duration divided, and nothing else."""

import pytest

from testkit.time_scale import parse_duration, scale_expression, scale_rules


@pytest.mark.parametrize(
    ("duration", "expected"), [("5m", 300), ("1h30m", 5400), ("3d", 259_200), ("500ms", 0.5)]
)
def test_durations_are_read(duration: str, expected: float) -> None:
    assert parse_duration(duration) == expected


def test_what_is_no_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration("5 minutes")


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("rate(a_total[10m]) > 5", "rate(a_total[10000ms]) > 5"),
        ("rate(a_total[1m])", "rate(a_total[5000ms])"),
        ("max_over_time(a[1h:1m])", "max_over_time(a[60000ms:1000ms])"),
        ("max_over_time(a[1h:])", "max_over_time(a[60000ms:1s])"),
        ("a offset 1h > 60", "a offset 60000ms > 60"),
        ('a{b="[5m] offset 1h"} > 1', 'a{b="[5m] offset 1h"} > 1'),
        ("busyapi:a:rate5m > 14.4 * 0.001", "busyapi:a:rate5m > 14.4 * 0.001"),
    ],
)
def test_windows_and_offsets_are_divided(expression: str, expected: str) -> None:
    assert scale_expression(expression, 60) == expected


def test_a_rule_keeps_its_names_and_waits_less() -> None:
    rule = {"alert": "A", "expr": "rate(a[1h]) > 1", "for": "5m", "annotations": {"b": "[5m]"}}
    rules = {"groups": [{"name": "g", "interval": "1m", "rules": [rule]}]}
    (group,) = scale_rules(rules, 60)["groups"]
    assert group == {
        "name": "g",
        "interval": "500ms",
        "rules": [{**rule, "expr": "rate(a[60000ms]) > 1", "for": "5000ms"}],
    }
    assert rule["for"] == "5m"

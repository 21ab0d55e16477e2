"""Log calls match the definitions of log events, in both directions.

A call is `log.<level>("event", field=...)`. Fields passed as `**fields` are a dict in its function.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from busyapi.telemetry.log_event import LogEvent
from busyapi.telemetry.log_events import EVENTS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "service" / "busyapi"


def read_sources() -> list[str]:
    """Return the source of each module that logs."""
    texts = (path.read_text() for path in PACKAGE.rglob("*.py"))
    return [source for source in texts if "\nlog = structlog.get_logger()\n" in source]


def find_log_calls(source: str) -> Iterator[LogEvent]:
    """Yield the log calls of a module as events."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="log"), attr=level),
                args=[ast.Constant(value=str(name))],
                keywords=keywords,
            ):
                yield LogEvent(name, level, tuple(_fields(keywords, source)), "", "")
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log"))):
                raise AssertionError(f"line {node.lineno}: an event's name is a constant")


def _fields(keywords: list[ast.keyword], source: str) -> Iterator[str]:
    for keyword in keywords:
        if keyword.arg:
            yield keyword.arg
            continue
        assert isinstance(keyword.value, ast.Name), (
            "fields must be named in the function that logs them"
        )
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(keys=keys)):
                    if name == keyword.value.id:
                        yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))


def find_differences(calls: list[LogEvent], events: tuple[LogEvent, ...]) -> set[str]:
    """Return the differences between calls and definitions."""
    rows = {row.name: row for row in events}
    bad = {f"{name} is logged nowhere" for name in rows.keys() - {call.name for call in calls}}
    for call in calls:
        row = rows.get(call.name)
        if row is None:
            bad.add(f"{call.name} is in no row")
        elif (row.level, set(row.fields)) != (call.level, set(call.fields) - set(row.optional)):
            bad.add(f"{call.name} is logged with {call.level} {sorted(call.fields)}")
    return bad


def test_every_log_call_has_its_row_and_every_row_its_call() -> None:
    calls = [call for source in read_sources() for call in find_log_calls(source)]
    events = tuple(row for row in EVENTS if row.name != "library_log")  # logs.py writes this event
    assert find_differences(calls, events) == set()
    assert len({row.name for row in EVENTS}) == len(EVENTS)


def test_there_is_one_way_to_log() -> None:
    allowed = {"logs.py"}  # configures logging
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        if source not in read_sources() and path.name not in allowed:
            assert "structlog" not in source, path
            assert "import logging" not in source, path


def test_every_runbook_that_a_row_names_exists() -> None:
    for row in EVENTS:
        for word in re.findall(r"\w+", row.action):
            if word.startswith("Busyapi"):
                assert (ROOT / "docs" / "runbooks" / f"{word}.md").exists(), word


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ('log.info("other", a=1)', "other is in no row"),
        ('log.error("known", a=1)', "known is logged with error ['a']"),
        ('log.info("known")', "known is logged with info []"),
        ('log.info("known", a=1, b=2)', "known is logged with info ['a', 'b']"),
        ('c = {"b": 1}\nlog.info("known", **c)', "known is logged with info ['b']"),
        ("pass", "known is logged nowhere"),
    ],
)
def test_a_call_that_differs_is_found(call: str, fault: str) -> None:
    source = f"def f():\n{textwrap.indent(call, '    ')}\n"
    known = (LogEvent("known", "info", ("a",), "", ""),)
    assert fault in find_differences(list(find_log_calls(source)), known)
    with pytest.raises(AssertionError, match="constant"):
        list(find_log_calls("log.info(name)"))

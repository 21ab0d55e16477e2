"""Lines and their depth, without the second reading that would hide a wrong quick answer."""

import pytest

from busyapi.decode.line import DEPTH_LIMIT, depth, is_shallow, parse, render, render_all


def nested(levels: int) -> object:
    return [nested(levels - 1)] if levels > 1 else ["[" * 200]


@pytest.mark.parametrize("levels", [1, 2, DEPTH_LIMIT, DEPTH_LIMIT + 1, 200])
def test_depth_counts_objects_and_arrays(levels: int) -> None:
    value = nested(levels)
    assert depth(value) == levels
    assert depth({"shallow": [], "deep": value, "text": "[["}) == levels + 1


@pytest.mark.parametrize(
    "value",
    [{}, {"a": "[" * 500}, nested(DEPTH_LIMIT), [[]] * 500, [{"a": {}}, {}] * 500, "{" * 500],
)
def test_quick_answer_is_yes_up_to_the_limit(value: object) -> None:
    assert is_shallow(render(value), value)


@pytest.mark.parametrize("value", [nested(DEPTH_LIMIT + 1), {"a": nested(DEPTH_LIMIT)}])
def test_quick_answer_is_no_beyond_the_limit(value: object) -> None:
    assert not is_shallow(render(value), value)


def test_quick_answer_is_no_for_the_shortest_line_beyond_the_limit() -> None:
    line = b"[" * (DEPTH_LIMIT + 1) + b"]" * (DEPTH_LIMIT + 1)
    assert not is_shallow(line, parse(line))


def test_lines_rendered_together_are_those_rendered_alone() -> None:
    values = [{"a": "x\n\r\u2028"}, {}, {"b": [None]}]
    assert render_all(values) == [render(value) for value in values]
    assert render_all([]) == []

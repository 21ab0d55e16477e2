"""JSON lines and their depth, without the second decoder, which would hide a wrong result."""

import pytest

from busyapi.decode.json_line import DEPTH_LIMIT, measure_depth, render, render_all


def make_nested(levels: int) -> object:
    return [make_nested(levels - 1)] if levels > 1 else ["[" * 200]


@pytest.mark.parametrize("levels", [1, 2, DEPTH_LIMIT, DEPTH_LIMIT + 1, 200])
def test_depth_counts_objects_and_arrays(levels: int) -> None:
    value = make_nested(levels)
    assert measure_depth(value) == levels
    assert measure_depth({"shallow": [], "deep": value, "text": "[["}) == levels + 1


def test_lines_rendered_together_equal_those_rendered_alone() -> None:
    values = [{"a": "x\n\r\u2028"}, {}, {"b": [None]}]
    assert render_all(values) == [render(value) for value in values]
    assert render_all([]) == []

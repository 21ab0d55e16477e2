"""Each test runs with an archive of format 2, or with those that its marker `formats` names."""

import pytest

from testkit.archive import builder


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Choose the formats of a test."""
    marker = metafunc.definition.get_closest_marker("formats")
    formats = marker.args if marker else (2,)
    metafunc.parametrize("archive_format", formats, indirect=True, ids=lambda n: f"format {n}")


@pytest.fixture(autouse=True)
def archive_format(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Write archives of this format, and return it."""
    number: int = request.param
    monkeypatch.setattr(builder, "chosen_format", number)
    return number

"""Every threat of the threat model has tests that exist, or says that nothing prevents it."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security" / "threat-model.md").read_text()
FLOWS = 9
_ROW = re.compile(r"^\| ([A-Z]) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`((?:tests|e2e)/[\w/]+\.py)::(\w+)`")


def find_problems(text: str) -> list[str]:
    """Return rows without a test or a reason, and tests that do not exist."""
    problems = []
    for letter, row in _ROW.findall(text):
        threat, prevention, tests = (cell.strip() for cell in row.split("|"))
        references = _TEST.findall(tests)
        if letter not in "STRIDE":
            problems.append(f"{letter}: {threat}")
        if not references and not re.search(r"\bnone: \w", prevention):
            problems.append(f"no test and no reason: {threat}")
        if references and ", ".join(f"`{path}::{name}`" for path, name in references) != tests:
            problems.append(f"not only tests: {tests}")
        problems += [
            f"{path} has no {name}" for path, name in references if not has_function(path, name)
        ]
    return problems


def has_function(path: str, name: str) -> bool:
    """Return whether a file has a function of this name."""
    file = ROOT / path
    return file.exists() and bool(re.search(rf"\bdef {name}\(", file.read_text()))


def test_every_threat_has_a_test_or_a_reason() -> None:
    assert find_problems(PAGE) == []


def test_every_connection_of_the_picture_has_threats() -> None:
    picture, *sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)
    numbers = {int(number) for number in re.findall(r"(?<=[ ─])\d(?=[ ─])", picture)}
    assert numbers == set(range(1, FLOWS + 1))
    covered = [re.findall(r"(\d) ", section.partition("\n")[0]) for section in sections]
    assert sorted(int(number) for section in covered for number in section) == sorted(numbers)
    assert all(_ROW.search(section) for section in sections)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| S | a | b | |", "no test and no reason: a"),
        ("| S | a | none: | |", "no test and no reason: a"),
        ("| X | a | none: it is so | |", "X: a"),
        ("| S | a | b | `tests/docs/test_x.py::test_a` |", "tests/docs/test_x.py has no test_a"),
        (
            "| S | a | b | `tests/docs/test_threat_model.py::test_a` |",
            "tests/docs/test_threat_model.py has no test_a",
        ),
        (
            "| S | a | b | `tests/docs/test_threat_model.py::has_function` and others |",
            "not only tests: `tests/docs/test_threat_model.py::has_function` and others",
        ),
    ],
)
def test_row_without_a_test_is_found(row: str, problem: str) -> None:
    assert find_problems(row) == [problem]

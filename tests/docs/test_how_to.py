"""A reader of one how-to page knows what each variable of its commands is."""

import re
from pathlib import Path

import pytest

from testkit.docs.links import ROOT

PAGES = sorted(path for path in (ROOT / "docs" / "how-to").glob("*.md") if path.stem != "index")
BEFORE = "index.md#before-you-start"
"""Where the variables of all pages are set."""
COMMON = {"NAMESPACE", "P", "WORK"}
_FENCED = re.compile(r"^ *```sh.*?^ *```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"^ {4,}.*$", re.MULTILINE)
_USED = re.compile(r"\$\{?([A-Z][A-Z_]*)\b")
_ASSIGNED = re.compile(r"(?<![-.\w])([A-Z][A-Z_]*)=")


def find_undefined(text: str) -> set[str]:
    """Return the variables in commands of a page that it neither sets nor links to."""
    commands = "\n".join(_FENCED.findall(text) + _INDENTED.findall(text))
    prose = set(re.findall(r"`([A-Z][A-Z_]*)`", _FENCED.sub("", text)))
    undefined = set(_USED.findall(commands)) - set(_ASSIGNED.findall(text))
    return undefined - (prose if BEFORE in text else prose - COMMON)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_page_says_what_its_variables_are(page: Path) -> None:
    assert find_undefined(page.read_text()) == set()


def test_variables_of_all_pages_are_set_where_pages_link_to() -> None:
    assert set(_ASSIGNED.findall((ROOT / "docs" / "how-to" / "index.md").read_text())) >= COMMON


@pytest.mark.parametrize(
    ("text", "undefined"),
    [
        ("```sh\nls $WORK/${NEW}\n```\n", {"WORK", "NEW"}),
        ("    ls $WORK\n", {"WORK"}),
        ("`WORK`: a folder\n\n    ls $WORK\n", {"WORK"}),
        (f"`WORK`: [see]({BEFORE})\n\n    ls $WORK\n", set()),
        ("`KEY`: a path. `export CA=a`\n\n    ls $KEY $CA $(ls)\n", set()),
    ],
)
def test_undefined_variable_is_found(text: str, undefined: set[str]) -> None:
    assert find_undefined(text) == undefined

"""Every relative link in a Markdown file leads to a file, and to a heading where it names one."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^ *```.*?^ *```|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def documents() -> list[Path]:
    """List the Markdown files of the repository."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, text=True, timeout=20
    )
    return [path for line in listed.splitlines() if (path := ROOT / line).exists()]


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as the forge makes them."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(text))
    return {title.strip().replace(" ", "-") for title in titles}


def broken_links(folder: Path, text: str) -> list[str]:
    """Return the links of a text in a folder that lead nowhere."""
    local = (link for link in _LINK.findall(_CODE.sub("", text)) if "://" not in link)
    return [link for link in local if not leads_somewhere(folder, text, link)]


def leads_somewhere(folder: Path, text: str, link: str) -> bool:
    """Return whether a link in a text leads to a file or folder, and to a heading in it."""
    path, _, anchor = link.partition("#")
    target = folder / path
    if not target.exists() or not target.resolve().is_relative_to(ROOT):
        return False
    return not anchor or anchor in anchors(target.read_text() if path else text)


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert broken_links(document.parent, document.read_text()) == []


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](nowhere.md)", ["nowhere.md"]),
        ("[a](#b)\n\n# A\n", ["#b"]),
        ("[a](README.md#nowhere)", ["README.md#nowhere"]),
        ("[a](#a-b)\n\n## A `b`\n", []),
        ("[a](README.md), [b](https://example.org), `[c](d)`\n\n    [e](f)\n", []),
    ],
)
def test_broken_link_is_found(text: str, broken: list[str]) -> None:
    assert broken_links(ROOT, text) == broken

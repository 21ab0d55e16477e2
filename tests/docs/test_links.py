"""Every relative link in a Markdown file leads to a file, and to a heading where it names one."""

import subprocess
from pathlib import Path

import pytest

from testkit.docs.links import ROOT, find_broken_links


def documents() -> list[Path]:
    """List the Markdown files of the repository."""
    listed = subprocess.check_output(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, text=True, timeout=20
    )
    return [path for line in listed.splitlines() if (path := ROOT / line).exists()]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    assert find_broken_links(document.parent, document.read_text()) == []


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
    assert find_broken_links(ROOT, text) == broken

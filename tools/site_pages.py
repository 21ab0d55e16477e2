"""Conversion of the repository's Markdown files to pages of the site.

The files are written for the forge, which differs from Python-Markdown in three ways: links may
lead out of docs/, a fence may have marks after its language, and the content of an item of an
ordered list is indented by three characters instead of four.
"""

import posixpath
import re

PAGES_OUTSIDE_DOCS = {
    "ARCHITECTURE.md": "explanation/architecture.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "RELEASING.md": "RELEASING.md",
    "SECURITY.md": "SECURITY.md",
    "charts/busyapi/README.md": "reference/chart.md",
    "service/busyapi/api/openapi.json": "reference/openapi.json",
    "service/busyapi/archive/FORMAT.md": "reference/archive-format.md",
    "service/busyapi/audit/FORMAT.md": "reference/audit-format.md",
}
"""Files outside of docs/ that are pages too: path in the repository -> path on the site."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *```)(\w*).*$")
_ITEM = re.compile(r"^\d+\. ")


def page_of(path: str) -> str | None:
    """Return where a file of the repository is on the site, or None."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else PAGES_OUTSIDE_DOCS.get(path)


def source_of(page: str) -> str:
    """Return the repository's file that a page comes from."""
    outside = {page: path for path, page in PAGES_OUTSIDE_DOCS.items()}
    return outside.get(page, f"docs/{page}")


def adapt(text: str, page: str) -> str:
    """Return the text of a page for Python-Markdown."""
    return _indent_lists(_strip_marks(_rewrite_links(text, page)))


def _rewrite_links(text: str, page: str) -> str:
    """Point links at pages of the site. A link to a file that is no page becomes its text."""
    here, folder = posixpath.dirname(page), posixpath.dirname(source_of(page))

    def link(match: re.Match[str]) -> str:
        mark, title, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        there = page_of(posixpath.normpath(posixpath.join(folder, path)))
        if there is None:
            return title
        return f"{mark}[{title}]({posixpath.relpath(there, here or '.')}{hash_}{anchor})"

    return _LINK.sub(link, text)


def _strip_marks(text: str) -> str:
    return "\n".join(_FENCE.sub(r"\1\2", line) for line in text.split("\n"))


def _indent_lists(text: str) -> str:
    """Indent the content of an ordered list's items by one more character."""
    lines, inside, fenced = [], False, False
    for line in text.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        if _ITEM.match(line) and not fenced:
            inside = True
        elif line and not line.startswith("   "):
            inside = False
        lines.append(f" {line}" if inside and line.startswith("   ") else line)
    return "\n".join(lines)

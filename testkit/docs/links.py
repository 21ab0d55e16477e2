"""Check the relative links of Markdown texts."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^ *```.*?^ *```|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def find_anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as the forge generates them."""
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in _HEADING.findall(text))
    return {title.strip().replace(" ", "-") for title in titles}


def find_broken_links(folder: Path, text: str) -> list[str]:
    """Return the links without a target in a text from a folder."""
    local = (link for link in _LINK.findall(_CODE.sub("", text)) if "://" not in link)
    return [link for link in local if not has_target(folder, text, link)]


def has_target(folder: Path, text: str, link: str) -> bool:
    """Return whether the target of a link exists: a file or folder, and a heading in it."""
    path, _, anchor = link.partition("#")
    target = folder / path
    if not target.exists() or not target.resolve().is_relative_to(ROOT):
        return False
    return not anchor or anchor in find_anchors(target.read_text() if path else text)

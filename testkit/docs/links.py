"""Relative links of Markdown texts, and whether they lead anywhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_CODE = re.compile(r"^ *```.*?^ *```|^(?: {4}|\t).*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


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

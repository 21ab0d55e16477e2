"""Hooks for mkdocs: they add the pages outside of docs/ and adapt each page."""

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from tools.site_pages import PAGES_OUTSIDE_DOCS, adapt

ROOT = Path(__file__).parents[1]


def on_files(files: Files, config: Any) -> Files:
    """Add the pages whose files are not in docs/."""
    for path, page in PAGES_OUTSIDE_DOCS.items():
        files.append(File.generated(config, page, content=(ROOT / path).read_text()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Adapt a page to Python-Markdown."""
    return adapt(markdown, page.file.src_uri)

"""The folder of a result: JSON, pictures, and a page with all of it."""

from pathlib import Path

from loadtest.page import render_page
from loadtest.plot import draw_pictures
from loadtest.result import Result, read


def write(result: Result, folder: Path) -> Path:
    """Write a result; return the path of its page."""
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder / "result.json")
    plain = read(folder / "result.json")
    index = folder / "index.html"
    index.write_text(render_page(plain, draw_pictures(plain, folder)))
    return index

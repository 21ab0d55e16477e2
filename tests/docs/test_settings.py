"""docs/reference/settings.md is what settings.py says; `make docs` writes it."""

from dataclasses import fields
from pathlib import Path

from busyapi.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
HEAD = """\
# Settings

Every setting is an environment variable, read once when a process starts. An empty value means the
default. If a value is not allowed, the process prints which one and exits with code 2.

| variable | default | unit | what for |
|---|---|---|---|
"""


def rendered() -> str:
    rows = []
    for each in fields(Settings):
        meta = each.metadata
        unit = meta["unit"] or ", ".join(f"`{choice}`" for choice in meta["choices"])
        default = f"`{each.default}`" if each.default != "" else "none"
        rows.append(f"| `{meta['name']}` | {default} | {unit} | {meta['reason']} |\n")
    return HEAD + "".join(rows)


def test_page_of_settings_is_what_the_code_reads() -> None:
    assert PAGE.read_text() == rendered(), "out of date: run `make docs`"


if __name__ == "__main__":
    PAGE.write_text(rendered())

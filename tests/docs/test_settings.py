"""docs/settings.md is what settings.py says; `python -m tests.docs.test_settings` writes it."""

from dataclasses import fields
from pathlib import Path

from busyapi.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
HEAD = """\
# Settings

Every setting is an environment variable, read once when a process starts. An empty value is the
default. A value that is not allowed ends the process with exit code 2 and says which one.

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
    assert PAGE.read_text() == rendered(), "make docs/settings.md anew: see this file's docstring"


if __name__ == "__main__":
    PAGE.write_text(rendered())

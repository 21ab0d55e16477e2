"""Generate docs/reference/settings.md from settings.py."""

from dataclasses import fields
from pathlib import Path

from busyapi.renamed_settings import RENAMED
from busyapi.settings import Settings

OWNED = ""
HEAD = """\
# Settings

Every setting is an environment variable, read once when a process starts. An empty value means the
default. If a value is not allowed, the process prints which one and exits with code 2.

| variable | default | unit | what for |
|---|---|---|---|
"""
RENAMED_HEAD = """\

## Renamed settings

The old name is still accepted, with the log event `setting_renamed`. The next release does not
accept it. If both are set, the new name wins.

"""


def render_page() -> str:
    """Return the page."""
    rows = []
    for field in fields(Settings):
        meta = field.metadata
        unit = meta["unit"] or ", ".join(f"`{choice}`" for choice in meta["choices"])
        default = f"`{field.default}`" if field.default != "" else "none"
        rows.append(f"| `{meta['name']}` | {default} | {unit} | {meta['reason']} |\n")
    renamed = [f"- `{old}` is now `{new}`.\n" for old, new in RENAMED.items()]
    return "".join([HEAD, *rows, *([RENAMED_HEAD, *renamed] if renamed else [])])


def render_files(_root: Path) -> dict[str, str]:
    """Return the page by its path."""
    return {"docs/reference/settings.md": render_page()}

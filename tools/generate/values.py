"""Generate the table of values in the chart's README from the comments in values.yaml.

A key has a row if a comment directly above it begins with `# --`. That row documents all keys below
it. Without such a comment, each key below must have its own, so no value can be undocumented.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = "charts/busyapi"
OWNED = ""
BEGIN, END = "<!-- values -->", "<!-- /values -->"
MARK = "# -- "
MAX_DEFAULT_LENGTH = 60
"""Characters. For a longer default, the table refers to values.yaml."""


class Row(NamedTuple):
    """A row of the table."""

    key: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"| `{self.key}` | {self.default} | {self.meaning} |"


class Undocumented(ValueError):
    """A key of values.yaml has no comment above it, nor has the map that it is in."""


def read_rows(text: str) -> Iterator[Row]:
    """Yield the rows of values.yaml.

    Raises:
        Undocumented: a key has no comment.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise Undocumented("values.yaml is no map")
    yield from _rows(root, "", text.splitlines())


def _rows(mapping: yaml.MappingNode, path: str, lines: list[str]) -> Iterator[Row]:
    for name, value in mapping.value:
        key = f"{path}{name.value}"
        meaning = find_comment(lines, name.start_mark.line)
        if meaning:
            yield Row(key, _default(value), meaning.replace("|", "\\|"))
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _rows(value, f"{key}.", lines)
        else:
            raise Undocumented(f"values.yaml: {key} has no comment that begins with `{MARK}`")


def find_comment(lines: list[str], line: int) -> str:
    """Return the comment that begins with the mark, directly above a line, or nothing."""
    above = lines[line - 1].strip() if line else ""
    return above.removeprefix(MARK) if above.startswith(MARK) else ""


def _default(node: yaml.Node) -> str:
    loader = yaml.SafeLoader("")
    value = json.dumps(loader.construct_document(node), ensure_ascii=False)
    return f"`{value}`" if len(value) <= MAX_DEFAULT_LENGTH else "see values.yaml"


def render_table(values: str) -> str:
    """Return the Markdown table."""
    head = ["| value | default | what for |", "|---|---|---|"]
    return "\n".join([*head, *map(str, read_rows(values))])


def update_readme(readme: str, values: str) -> str:
    """Return the README with a new table."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{render_table(values)}\n{END}{after}"


def render_files(root: Path) -> dict[str, str]:
    """Return the README with its table."""
    chart = root / CHART
    readme, values = (
        (chart / name).read_text(encoding="utf-8") for name in ("README.md", "values.yaml")
    )
    return {f"{CHART}/README.md": update_readme(readme, values)}

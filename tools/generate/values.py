"""Make the table of values in the chart's README from the comments in values.yaml.

A key has a row when a comment that begins with `# --` stands directly above it. The key then
stands for all that is below it; without one, each key below must have its own. So no value can be
undocumented.
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
LONGEST_DEFAULT = 60
"""Characters. A default that is longer is better read in values.yaml."""


class Row(NamedTuple):
    """A value, as the table tells it."""

    key: str
    default: str
    meaning: str

    def __str__(self) -> str:
        return f"| `{self.key}` | {self.default} | {self.meaning} |"


class Undocumented(ValueError):
    """A key of values.yaml has no comment above it, nor has the map that it is in."""


def rows(text: str) -> Iterator[Row]:
    """Read values.yaml.

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
        meaning = _comment(lines, name.start_mark.line)
        if meaning:
            yield Row(key, _default(value), meaning.replace("|", "\\|"))
        elif isinstance(value, yaml.MappingNode) and value.value:
            yield from _rows(value, f"{key}.", lines)
        else:
            raise Undocumented(f"values.yaml: {key} has no comment that begins with `{MARK}`")


def _comment(lines: list[str], line: int) -> str:
    above = lines[line - 1].strip() if line else ""
    return above.removeprefix(MARK) if above.startswith(MARK) else ""


def _default(node: yaml.Node) -> str:
    loader = yaml.SafeLoader("")
    value = json.dumps(loader.construct_document(node), ensure_ascii=False)
    return f"`{value}`" if len(value) <= LONGEST_DEFAULT else "see values.yaml"


def table(values: str) -> str:
    """Make the Markdown table."""
    head = ["| value | default | what for |", "|---|---|---|"]
    return "\n".join([*head, *map(str, rows(values))])


def renewed(readme: str, values: str) -> str:
    """Give the README with the table as it should be."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(values)}\n{END}{after}"


def files(root: Path) -> dict[str, str]:
    """Return the README with its table."""
    chart = root / CHART
    readme, values = (
        (chart / name).read_text(encoding="utf-8") for name in ("README.md", "values.yaml")
    )
    return {f"{CHART}/README.md": renewed(readme, values)}

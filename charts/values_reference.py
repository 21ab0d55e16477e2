"""Make the table of values in the chart's README from the comments in values.yaml.

    python charts/values_reference.py            # write it
    python charts/values_reference.py --check    # exit 1 when it is stale

A key has a row when a comment that begins with `# --` stands directly above it. The key then
stands for all that is below it; without one, each key below must have its own. So no value can be
undocumented.
"""
# ruff: noqa: INP001 - a script, in no package

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

CHART = Path(__file__).parent / "busyapi"
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


class Undocumented(Exception):
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


def main(arguments: list[str] | None = None) -> int:
    """Write or check; give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    parser.add_argument("--chart", type=Path, default=CHART, help="default: %(default)s")
    options = parser.parse_args(arguments)
    readme = options.chart / "README.md"
    old = readme.read_text(encoding="utf-8")
    try:
        new = renewed(old, (options.chart / "values.yaml").read_text(encoding="utf-8"))
    except Undocumented as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if options.check and new != old:
        sys.stderr.write(f"{readme} is stale: run python charts/values_reference.py\n")
        return 1
    if not options.check:
        readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Make files/defaults.yaml from values.yaml: the default of each value that has a comment.

Templates complete the values with it, because Helm does not: `helm upgrade --reuse-values` keeps
the defaults of the old chart, and a null removes a default, also one of a parent chart. In the file
a map is a section of values.yaml, and a list holds the default of one value. A list of two marks a
value whose null means none.
"""

import json
from pathlib import Path
from typing import Any

import yaml

from tools.generate.values import CHART, Undocumented, find_comment

OWNED = ""
VALUES = f"{CHART}/values.yaml"
DEFAULTS = f"{CHART}/files/defaults.yaml"
HEAD = "# Generated from values.yaml by `make generate`. A list holds the default of one value.\n"
EXCLUDED = {"global"}
"""Sections that belong to other charts too."""
NULL_MEANS_NONE = {
    "autoscaling.targetCPUUtilizationPercentage",
    "keda.targetCPUUtilizationPercentage",
}
"""Values that have a default, and whose null does not mean this default."""


def read_defaults(text: str) -> dict[str, Any]:
    """Return the defaults of values.yaml by section.

    Raises:
        Undocumented: values.yaml is not a map.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        raise Undocumented("values.yaml is not a map")
    return _read_section(root, "", text.splitlines())


def _read_section(mapping: yaml.MappingNode, path: str, lines: list[str]) -> dict[str, Any]:
    section: dict[str, Any] = {}
    for name, value in mapping.value:
        key = f"{path}{name.value}"
        if key in EXCLUDED:
            continue
        if find_comment(lines, name.start_mark.line):
            default = yaml.SafeLoader("").construct_document(value)
            section[name.value] = [default, "null means none"][: 1 + (key in NULL_MEANS_NONE)]
        else:
            section[name.value] = _read_section(value, f"{key}.", lines)
    return section


def render_files(root: Path) -> dict[str, str]:
    """Return the file."""
    text = (root / VALUES).read_text(encoding="utf-8")
    rows = json.loads(json.dumps(read_defaults(text)))
    return {DEFAULTS: HEAD + yaml.safe_dump(rows, sort_keys=False, width=100)}

"""What one invocation found: written as JSON, drawn, and compared with another one's."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest.reconcile import Row
from loadtest.target import Sample

VERSION = 1

Json = dict[str, Any]


@dataclass
class Result:
    """All of it."""

    about: Json = field(default_factory=dict)
    """When, where, with what."""
    openloop: Json = field(default_factory=dict)
    """The generator's figures (figures.py)."""
    samples: list[Sample] = field(default_factory=list)
    """Of the parts, while it ran."""
    cores: dict[str, float] = field(default_factory=dict)
    """That each program of this machine used, while it ran."""
    k6: dict[str, Json] = field(default_factory=dict)
    """The summary of each script."""
    rows: list[Row] = field(default_factory=list)
    """Of each load, reconciled."""
    failures: list[str] = field(default_factory=list)

    def as_json(self) -> Json:
        """Return what is written."""
        return {"version": VERSION, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write it."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def read(path: Path) -> Json:
    """Read what was written.

    Raises:
        ValueError: The file is not a result.
    """
    try:
        content: Json = json.loads(path.read_text())
    except ValueError:
        content = {}
    if not isinstance(content, dict) or content.get("version") != VERSION:
        raise ValueError(f"{path} is not a result of a load test, or another version's")
    return content


def cost(result: Json) -> dict[str, float]:
    """Return the CPU microseconds that each part spent on a usage."""
    created = result["openloop"].get("created", 0)
    with_cpu = [entry for entry in result["samples"] if entry["cpu"]]
    if not created or len(with_cpu) < 2:  # noqa: PLR2004 - a difference has two ends
        return {}
    first, last = with_cpu[0]["cpu"], with_cpu[-1]["cpu"]
    return {
        name: round((spent - first.get(name, 0.0)) / created * 1e6, 2)
        for name, spent in last.items()
    }

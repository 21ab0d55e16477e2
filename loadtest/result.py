"""The result of a load test, which is written as JSON, drawn, and compared with another."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from loadtest.reconcile import Row
from loadtest.target import Event, Sample

VERSION = 1

Json = dict[str, Any]


@dataclass
class Result:
    """The result of one load test."""

    about: Json = field(default_factory=dict)
    """Time, machine, target and options."""
    openloop: Json = field(default_factory=dict)
    """The generator's figures (figures.py)."""
    samples: list[Sample] = field(default_factory=list)
    """Samples of the parts during the open loop."""
    events: list[Event] = field(default_factory=list)
    """Events during the open loop that may have delayed answers."""
    cores: dict[str, float] = field(default_factory=dict)
    """Cores that each program of this machine used during the open loop."""
    k6: dict[str, Json] = field(default_factory=dict)
    """The summary of each script."""
    rows: list[Row] = field(default_factory=list)
    """The reconciled counts of each load."""
    failures: list[str] = field(default_factory=list)

    def as_json(self) -> Json:
        """Return the result as JSON values."""
        return {"version": VERSION, **asdict(self)}

    def write(self, path: Path) -> None:
        """Write the result."""
        path.write_text(json.dumps(self.as_json(), indent=1) + "\n")


def read(path: Path) -> Json:
    """Read a written result.

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


def compute_cost(result: Json) -> dict[str, float]:
    """Return the CPU microseconds that each part spent on a usage."""
    created = result["openloop"].get("created", 0)
    with_cpu = [entry for entry in result["samples"] if entry["cpu"]]
    if not created or len(with_cpu) < 2:  # noqa: PLR2004 - a difference has two ends
        return {}
    first, last = with_cpu[0]["cpu"], with_cpu[-1]["cpu"]
    return {
        name: round((cpu_seconds - first.get(name, 0.0)) / created * 1e6, 2)
        for name, cpu_seconds in last.items()
    }

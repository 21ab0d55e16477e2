"""The report of a run, as Markdown and as JSON. Each scenario has a row."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic

from e2e.measure import DUPLICATES, LOST, Figures, count_defects
from testkit.checker import Verdict

INTRO = """# On a real cluster

`make e2e` writes this page. Each load is an open loop through the ingress controller. Every request
has its own payload and is sent once. After each scenario, the history checker compares all answers
so far with the whole archive.

- *Failed*: requests that were not answered with 201, including reset ones.
- *Lost*: usages that were answered with 201 and that the archive lacks.
- *Duplicates*: usages that the archive has twice.
- *Silence*: the longest time without a 201.
"""


@dataclass
class Row:
    """One scenario."""

    name: str
    figures: Figures | None = None
    verdict: Verdict | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    failure: str = ""
    skipped: bool = False
    """The cluster lacks something that the scenario needs. A note names it."""

    @property
    def lost(self) -> int | None:
        """Return the lost usages, if the archive was checked."""
        return None if self.verdict is None else count_defects(self.verdict, LOST)

    @property
    def duplicates(self) -> int | None:
        """Return the usages that the archive has twice, if it was checked."""
        return None if self.verdict is None else count_defects(self.verdict, DUPLICATES)

    def __str__(self) -> str:
        return " | ".join(cell for cell in self.cells() if cell)

    def cells(self) -> list[str]:
        """Return the cells of the row."""
        load_figures = self.figures
        load = (
            [f"{load_figures.sent:,}", f"{load_figures.answered:,}", f"{load_figures.failed:,}"]
            if load_figures
            else [""] * 3
        )
        defects = ["" if entry is None else str(entry) for entry in (self.lost, self.duplicates)]
        quiet = (
            [f"{load_figures.silence:.1f}", f"{load_figures.p99 * 1000:.0f}"]
            if load_figures
            else [""] * 2
        )
        state = "failed" if self.failure else "skipped" if self.skipped else "passed"
        return [self.name, state, *load, *defects, *quiet, f"{self.seconds:.0f}"]

    def json(self) -> dict[str, object]:
        """Return the row as JSON values."""
        return {
            "scenario": self.name,
            "passed": not self.failure and not self.skipped,
            "left_out": self.skipped,
            "load": asdict(self.figures) if self.figures else None,
            "lost": self.lost,
            "duplicates": self.duplicates,
            "archived": self.verdict.archived if self.verdict else None,
            "seconds": round(self.seconds, 1),
            "notes": self.notes,
            "failure": self.failure,
        }


@dataclass
class Report:
    """The report of one run."""

    facts: dict[str, str]
    folder: Path
    """The report's folder. Pictures are in e2e/ below it."""
    rows: list[Row] = field(default_factory=list)
    pictures: list[tuple[str, str]] = field(default_factory=list)
    """The titles and file names of the pictures."""
    prefix: str = ""
    """What precedes the names of new rows: the release that a scenario runs on."""

    @contextmanager
    def prefixed(self, prefix: str) -> Iterator[None]:
        """Name the rows of scenarios that another part runs too."""
        before, self.prefix = self.prefix, prefix
        try:
            yield
        finally:
            self.prefix = before

    @contextmanager
    def row(self, name: str) -> Iterator[Row]:
        """Add a row for a scenario, with its time and the error that it raises."""
        row, began = Row(self.prefix + name), monotonic()
        self.rows.append(row)
        try:
            yield row
        except BaseException as error:
            row.failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            row.seconds = monotonic() - began
            sys.stdout.write(f"{row}\n")
            sys.stdout.flush()

    def record_error(self, part: str, error: Exception) -> None:
        """Add a row for an error that ended a part, unless a row has it already."""
        failure = f"{type(error).__name__}: {error}"
        if failure not in {row.failure for row in self.rows}:
            self.rows.append(Row(f"{part}: outside its scenarios", failure=failure))

    @property
    def failed(self) -> list[Row]:
        """Return the failed rows."""
        return [row for row in self.rows if row.failure]

    def markdown(self) -> str:
        """Return the report as Markdown."""
        heads = ["scenario", "", "sent", "answered", "failed", "lost", "duplicates"]
        heads += ["silence s", "p99 ms", "duration s"]
        table = [heads, ["---", "---", *["---:"] * 8], *(row.cells() for row in self.rows)]
        lines = [INTRO, "## Setup", ""]
        lines += [
            *(f"- {name}: {value}" for name, value in self.facts.items()),
            "",
            "## Results",
            "",
        ]
        lines += ["| " + " | ".join(cells) + " |" for cells in table]
        notes = [(row.name, note) for row in self.rows for note in row.notes]
        if notes:
            lines += ["", "## Notes", "", *(f"- **{name}**: {note}" for name, note in notes)]
        failures = [(row.name, row.failure) for row in self.failed]
        if failures:
            lines += ["", "## Failures"]
            lines += [f"\n**{name}**\n\n```\n{failure[:4000]}\n```" for name, failure in failures]
        for title, file in self.pictures:
            lines += ["", f"## {title}", "", f"![{title}](e2e/{file})"]
        return "\n".join(lines) + "\n"

    def write(self) -> None:
        """Write `e2e.md`, and `e2e/e2e.json` next to the pictures."""
        folder = self.folder
        (folder / "e2e").mkdir(parents=True, exist_ok=True)
        (folder / "e2e.md").write_text(self.markdown())
        content = {"facts": self.facts, "scenarios": [row.json() for row in self.rows]}
        (folder / "e2e" / "e2e.json").write_text(json.dumps(content, indent=1) + "\n")

"""Generate docs/reference/metrics.md from the definitions of metrics, rules and dashboards."""

from itertools import chain
from pathlib import Path

from busyapi.telemetry import metric_defs_api, metric_defs_flusher, metric_defs_lake
from busyapi.telemetry.metric_defs import MetricDef
from tools.generate.metric_readers import Reads, find_readers

OWNED = ""
SECTIONS = {
    "API": metric_defs_api.METRICS,
    "Flusher": metric_defs_flusher.METRICS,
    "Lake": metric_defs_lake.METRICS,
}
ROWS = {row.name: row for rows in SECTIONS.values() for row in rows}

HEAD = """\
# Metrics

API processes serve metrics on `BUSYAPI_METRICS_PORT`, flushers on `BUSYAPI_FLUSHER_PORT`, and
`busyapi lake`, unless it runs with `--once`, on `BUSYAPI_LAKE_METRICS_PORT`, all at `/metrics`. The
format is OpenMetrics for clients that accept it, and Prometheus text otherwise. A counter with a
fixed list of label values has all of them from the start, at 0. The only units are seconds and
bytes. A metric without a unit is a count, or 1 for yes and 0 for no.

Every series of a flusher has the label `partition`.
"""
COLUMNS = """\
| metric | type | labels | what it means | read by |
|---|---|---|---|---|
"""


def render_page(readers: Reads) -> str:
    """Return the page."""
    sections = (_section(title, rows, readers) for title, rows in SECTIONS.items())
    return "".join([HEAD, *chain.from_iterable(sections)])


def _section(title: str, rows: tuple[MetricDef, ...], readers: Reads) -> list[str]:
    lines = (_line(row, readers.get(row.name, set())) for row in rows)
    return [f"\n## {title}\n\n{COLUMNS}", *(f"{line}\n" for line in lines)]


def _line(row: MetricDef, readers: set[str]) -> str:
    labels = "; ".join(map(str, row.labels))
    by = "; ".join(sorted(readers, key=alerts_first))
    kind = f"{row.kind}, {row.unit}" if row.unit else row.kind
    return f"| `{row.sample_name}` | {kind} | {labels} | {row.help} | {by} |"


def alerts_first(reader: str) -> tuple[bool, str]:
    """Return a key that sorts alerts before all other readers."""
    return not reader.startswith("Busyapi"), reader


def render_files(root: Path) -> dict[str, str]:
    """Return the page by its path."""
    return {"docs/reference/metrics.md": render_page(find_readers(set(ROWS), root))}

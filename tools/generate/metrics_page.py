"""Make docs/reference/metrics.md from the catalogue of metrics, the rules and the dashboards."""

from pathlib import Path

from busyapi import catalogue_api, catalogue_flusher
from busyapi.catalogue import Row
from tools.generate.metric_readers import Reads, read_by

OWNED = ""
ROWS = {row.name: row for row in (*catalogue_api.ROWS, *catalogue_flusher.ROWS)}

HEAD = """\
# Metrics

API processes serve metrics on `BUSYAPI_METRICS_PORT`, flushers on `BUSYAPI_FLUSHER_PORT`, both at
`/metrics`. The format is OpenMetrics for clients that accept it, and Prometheus text otherwise. A
counter with a fixed list of label values has all of them from the start, at 0. The only units are
seconds and bytes. A metric without a unit is a count, or 1 for yes and 0 for no.

Every series of a flusher has the label `partition`.
"""
COLUMNS = """\
| metric | type | labels | what it means | read by |
|---|---|---|---|---|
"""


def rendered(readers: Reads) -> str:
    """Return the page."""
    api = _section("API", catalogue_api.ROWS, readers)
    return "".join([HEAD, *api, *_section("Flusher", catalogue_flusher.ROWS, readers)])


def _section(title: str, rows: tuple[Row, ...], readers: Reads) -> list[str]:
    lines = (_line(row, readers.get(row.name, set())) for row in rows)
    return [f"\n## {title}\n\n{COLUMNS}", *(f"{line}\n" for line in lines)]


def _line(row: Row, readers: set[str]) -> str:
    labels = "; ".join(map(str, row.labels))
    by = "; ".join(sorted(readers, key=alerts_first))
    kind = f"{row.kind}, {row.unit}" if row.unit else row.kind
    return f"| `{row.exposed}` | {kind} | {labels} | {row.meaning} | {by} |"


def alerts_first(reader: str) -> tuple[bool, str]:
    """Return a key that sorts alerts before all other readers."""
    return not reader.startswith("Busyapi"), reader


def files(root: Path) -> dict[str, str]:
    """Return the page by its path."""
    return {"docs/reference/metrics.md": rendered(read_by(set(ROWS), root))}

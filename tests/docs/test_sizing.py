"""The calculator starts from the figures in docs/reports/performance.md."""

from pathlib import Path

import pytest

from busyapi.sizing.costs import BATCHED_POST_COST, SINGLE_POST_COST
from tools.generate.sizing_page import START

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference" / "sizing.md"
PERFORMANCE = (DOCS / "reports" / "performance.md").read_text()


def test_the_page_has_its_tables() -> None:
    assert START in PAGE.read_text()
    assert "| 100 million | by the thousand |" in PAGE.read_text()


def read_figures(text: str, row: str) -> list[float]:
    """Return the figures of the only row with this name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {row} |")]
    cells = [cell.strip().replace(",", "") for cell in line.split("|")[2:-1]]
    return [float(cell) for cell in cells if cell]


def read_measured_costs(text: str) -> tuple[list[float], list[float]]:
    """Return the CPU time and archive bytes of a usage posted alone and of one in a batch."""
    flat = text.partition("## Fifty million")[2]
    first = {
        process: read_figures(flat, f"{process}: CPU µs a usage")[0]
        for process in ("api-0", "api-1", "valkey", "flusher")
    }
    archive = read_figures(flat, "archive bytes a usage")[0]
    many = [round(first["api-0"] + first["api-1"], 2), first["valkey"], first["flusher"], archive]
    pinned = text.partition("## Pinned")[2].partition("\n##")[0]
    return [*read_figures(pinned, "durable, fast path")[-3:], archive], many


def list_planned_costs() -> tuple[list[float], list[float]]:
    """Return the same figures of the calculator."""
    alone, many = (
        [cost.api_us, cost.redis_us, cost.flusher_us, cost.archive_bytes]
        for cost in (SINGLE_POST_COST, BATCHED_POST_COST)
    )
    return alone, many


def test_the_calculator_starts_from_the_measured_costs() -> None:
    assert list_planned_costs() == read_measured_costs(PERFORMANCE)


@pytest.mark.parametrize("row", ["durable, fast path", "flusher: CPU µs a usage"])
def test_another_measurement_is_detected(row: str) -> None:
    (line,) = [line for line in PERFORMANCE.splitlines() if line.startswith(f"| {row} |")]
    other = PERFORMANCE.replace(line, f"| {row} | 9 | 9 | 9 | 9 | 9 |")
    assert list_planned_costs() != read_measured_costs(other)

"""docs/reference/sizing.md holds what `busyapi sizing` works out; `make docs` writes its tables.

And the calculator starts from the figures of docs/reports/performance.md.
"""

import math
from pathlib import Path

import pytest

from busyapi.sizing import (
    BATCHED,
    KEY_LOG_BYTES,
    KEY_WAITING_BYTES,
    REDIS_KEY_BYTES,
    SINGLE,
    VALKEY_KEY_BYTES,
    Figures,
    Wanted,
    plan,
)

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "reference" / "sizing.md"
PERFORMANCE = (DOCS / "reports" / "performance.md").read_text()
MILLION = 1_000_000
START, END = "<!-- sizing -->\n", "<!-- /sizing -->"
HEAD = (
    "| usages a minute | posted | API pods | partitions | CPU of Redis, flusher a partition"
    " | Redis memory a partition | with keys | Redis disk a partition | with keys"
    " | archive a day |\n|---:|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def rows() -> str:
    """Return the table: 15 minutes without a flusher, 30 days kept; without keys and with."""
    lines = []
    for millions in (1, 10, 100):
        for posted, batched in (("one by one", False), ("by the thousand", True)):
            wanted = Wanted(millions * MILLION, batched=batched)
            found, keyed = plan(wanted), plan(wanted._replace(keyed=100))
            lines.append(
                f"| {millions:,} million | {posted} | {found.pods} | {found.partitions}"
                f" | {found.redis_cores:.2f}, {found.flusher_cores:.2f} cores"
                f" | {found.redis_gib:.1f} GiB | {keyed.redis_gib:.1f} GiB"
                f" | {math.ceil(found.log_gib)} GiB | {math.ceil(keyed.log_gib)} GiB"
                f" | {found.disk_gib_a_day:,.0f} GiB |\n"
            )
    return HEAD + "".join(lines)


def figures() -> str:
    """Return the table of what the plans start from."""
    named: tuple[tuple[str, Figures], ...] = (("one by one", SINGLE), ("by the thousand", BATCHED))
    head = (
        "| posted | API µs | Redis µs | flusher µs | bytes in Redis | bytes of its log"
        " | bytes in the archive |\n|---|---:|---:|---:|---:|---:|---:|\n"
    )
    lines = [
        f"| {name} | " + " | ".join(f"{each:g}" for each in row[:-1]) + " |\n"
        for name, row in named
    ]
    key = (
        "\n| an Idempotency-Key | bytes |\n|---|---:|\n"
        f"| memory of Valkey 9 | {VALKEY_KEY_BYTES} |\n"
        f"| memory of Redis 7.0 | {REDIS_KEY_BYTES} |\n"
        f"| more memory while its usage waits | {KEY_WAITING_BYTES} |\n"
        f"| a log written anew | {KEY_LOG_BYTES} |\n"
    )
    return head + "".join(lines) + key


def page() -> str:
    """Return the page with its tables made anew."""
    before, _, rest = PAGE.read_text().partition(START)
    return before + START + figures() + "\n" + rows() + END + rest.partition(END)[2]


def test_the_tables_are_what_the_calculator_says() -> None:
    assert PAGE.read_text() == page()


def test_the_page_has_its_tables() -> None:
    assert START in PAGE.read_text()
    assert "| 100 million | by the thousand |" in PAGE.read_text()


def measured(text: str, row: str) -> list[float]:
    """Return the figures of the one row of docs/reports/performance.md that begins so."""
    (line,) = [each for each in text.splitlines() if each.startswith(f"| {row} |")]
    cells = [each.strip().replace(",", "") for each in line.split("|")[2:-1]]
    return [float(each) for each in cells if each]


def starts_from(text: str) -> tuple[list[float], list[float]]:
    """Return what the page says of CPU and archive: for a usage posted alone, for one of many."""
    flat = text.partition("## Fifty million")[2]
    first = {
        each: measured(flat, f"{each}: CPU µs a usage")[0]
        for each in ("api-0", "api-1", "valkey", "flusher")
    }
    archive = measured(flat, "archive bytes a usage")[0]
    many = [round(first["api-0"] + first["api-1"], 2), first["valkey"], first["flusher"], archive]
    pinned = text.partition("## Pinned")[2].partition("\n##")[0]
    return [*measured(pinned, "durable, fast path")[-3:], archive], many


def planned() -> tuple[list[float], list[float]]:
    """Return the same of the calculator."""
    alone, many = (
        [each.api_us, each.redis_us, each.flusher_us, each.archive_bytes]
        for each in (SINGLE, BATCHED)
    )
    return alone, many


def test_the_calculator_starts_from_what_was_measured() -> None:
    assert planned() == starts_from(PERFORMANCE)


@pytest.mark.parametrize("row", ["durable, fast path", "flusher: CPU µs a usage"])
def test_another_measurement_is_noticed(row: str) -> None:
    (line,) = [each for each in PERFORMANCE.splitlines() if each.startswith(f"| {row} |")]
    other = PERFORMANCE.replace(line, f"| {row} | 9 | 9 | 9 | 9 | 9 |")
    assert planned() != starts_from(other)


if __name__ == "__main__":
    PAGE.write_text(page())

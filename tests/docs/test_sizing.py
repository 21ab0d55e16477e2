"""docs/sizing.md holds what `busyapi sizing` works out; `make docs` writes its tables anew."""

from pathlib import Path

from busyapi.sizing import BATCHED, SINGLE, Figures, plan

PAGE = Path(__file__).parents[2] / "docs/sizing.md"
MILLION = 1_000_000
START, END = "<!-- sizing -->\n", "<!-- /sizing -->"
HEAD = (
    "| usages a minute | posted | API pods | partitions | CPU of Redis, flusher a partition"
    " | Redis memory a partition | archive a day |\n|---:|---|---:|---:|---:|---:|---:|\n"
)


def rows() -> str:
    """Return the table: 15 minutes without a flusher, 30 days kept."""
    lines = []
    for millions in (1, 10, 100):
        for posted, batched in (("one by one", False), ("by the hundred", True)):
            found = plan(
                millions * MILLION, batched=batched, outage_minutes=15, days=30, partitions=None
            )
            lines.append(
                f"| {millions:,} million | {posted} | {found.pods} | {found.partitions}"
                f" | {found.redis_cores:.2f}, {found.flusher_cores:.2f} cores"
                f" | {found.redis_gib:.1f} GiB | {found.disk_gib_a_day:,.0f} GiB |\n"
            )
    return HEAD + "".join(lines)


def figures() -> str:
    """Return the table of what the plans start from."""
    named: tuple[tuple[str, Figures], ...] = (("one by one", SINGLE), ("by the hundred", BATCHED))
    head = "| posted | API µs | Redis µs | flusher µs | bytes in Redis | bytes in the archive |\n"
    lines = [
        f"| {name} | " + " | ".join(f"{each:g}" for each in row) + " |\n" for name, row in named
    ]
    return head + "|---|---:|---:|---:|---:|---:|\n" + "".join(lines)


def page() -> str:
    """Return the page with its tables made anew."""
    before, _, rest = PAGE.read_text().partition(START)
    return before + START + figures() + "\n" + rows() + END + rest.partition(END)[2]


def test_the_tables_are_what_the_calculator_says() -> None:
    assert PAGE.read_text() == page()


def test_the_page_has_its_tables() -> None:
    assert START in PAGE.read_text()
    assert "| 100 million | by the hundred |" in PAGE.read_text()


if __name__ == "__main__":
    PAGE.write_text(page())

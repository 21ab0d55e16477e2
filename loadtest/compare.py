"""Compare two results."""

from collections.abc import Iterator

from loadtest.result import Json, compute_cost

MIB = 2**20


def list_figures(result: Json) -> Iterator[tuple[str, float]]:
    """Yield the figures to compare."""
    run = result["openloop"]
    if run:
        yield "offered a second", run["planned"] / run["seconds"]
        yield "answered with 201 a second", run["created"] / max(run["seconds"], run["elapsed"])
        yield "refused", run["refused"]
        yield "unknown or not sent", run["unknown"] + run["not_sent"]
        for name, value in run["latency"].items():
            yield f"{name.replace('p999', 'p99.9')} ms", value
    samples = result["samples"]
    if samples:
        yield "backlog, maximum", max(sample["backlog"] for sample in samples)
        for name in samples[-1]["resident"]:
            maximum = max(sample["resident"].get(name, 0) for sample in samples)
            yield f"{name}: MiB, maximum", maximum / MIB
    for name, value in compute_cost(result).items():
        yield f"{name}: CPU µs a usage", value
    yield "failures", len(result["failures"])


def compare(result_a: Json, result_b: Json) -> str:
    """Return a table with each figure of both, and the ratio of the second to the first."""
    before, after = dict(list_figures(result_a)), dict(list_figures(result_b))
    names = dict.fromkeys([*before, *after])
    rows = [
        ("", "A", "B", "B / A"),
        *(
            (n, format_number(before.get(n)), format_number(after.get(n)), _ratio(n, before, after))
            for n in names
        ),
    ]
    first, *widths = (max(len(row[column]) for row in rows) for column in range(4))
    return "\n".join(
        f"{row[0]:<{first}}  "
        + "  ".join(f"{cell:>{width}}" for cell, width in zip(row[1:], widths, strict=True))
        for row in rows
    )


def format_number(value: float | None) -> str:
    """Return a figure as readable text."""
    if value is None:
        return "—"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:,.2f}"  # noqa: PLR2004


def _ratio(name: str, before: dict[str, float], after: dict[str, float]) -> str:
    return f"{after[name] / before[name]:.2f}" if name in after and before.get(name) else ""

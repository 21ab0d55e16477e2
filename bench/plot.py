"""A picture of the contenders of one scenario: rates as bars, with memory and storage."""

from pathlib import Path

from matplotlib.figure import Figure

from bench.markdown import MIB
from bench.outcome import Outcome
from bench.runs import median_run

BUSYAPI_COLOUR, PEER_COLOUR = "#2b8a3e", "#868e96"


def plot(title: str, rows: list[Outcome], path: Path) -> None:
    """Write a PNG. busyapi's rows, the only ones with counts, have another colour."""
    runs = [median_run(row.runs) for row in rows]
    figure = Figure(figsize=(9, 0.9 + 0.55 * len(rows)), layout="constrained")
    axes = figure.subplots()
    colours = [BUSYAPI_COLOUR if row.counts else PEER_COLOUR for row in rows]
    bars = axes.barh(
        [f"{row.title}\nkept: {row.keeps}" for row in rows],
        [run.usages_per_second for run in runs],
        color=colours,
    )
    labels = [
        f"{run.usages_per_second:,.0f}/s, p99 {run.wrk.p99_ms:,.0f} ms,"
        f" {sum(run.resident_bytes.values()) / MIB:,.0f} MiB"
        for run in runs
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.invert_yaxis()
    axes.margins(x=0.36)
    axes.set_xlabel("usages a second (median run), with the memory of all its processes")
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", labelsize=8)
    figure.savefig(path, dpi=100)

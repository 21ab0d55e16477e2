"""The pictures: offered and achieved rates, latencies, and the state of the parts."""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from loadtest.events import REWRITE, ROLL
from loadtest.result import Json, compute_cost
from loadtest.spikes import ORDER, find_limit, find_spikes, has_causes

MIB = 2**20
SIZE = (8.4, 3.2)
SECONDS_AN_INCH = 40
"""A picture of a longer run is wider."""
QUANTILES = {"p50": "#74b816", "p95": "#1c7ed6", "p99": "#f08c00", "p999": "#e03131"}
CAUSES = {name: f"C{number}" for number, name in enumerate(ORDER)}
"""matplotlib has ten such colours."""
ANSWERED, OFFERED, EXIT_FAILED, REFUSED = "#2b8a3e", "#868e96", "#e03131", "#f08c00"

Draw = Callable[[Axes, Json], None]


def draw_pictures(result: Json, folder: Path) -> dict[str, Path]:
    """Draw the pictures that have data; return their paths by title."""
    paths = {}
    for title, (name, has_data, draw) in PICTURES.items():
        if has_data(result):
            paths[title] = folder / f"{name}.png"
            _picture(title, draw, result, paths[title])
    return paths


def _picture(title: str, draw: Draw, result: Json, path: Path) -> None:
    width, height = SIZE
    width = max(width, result["openloop"]["seconds"] / SECONDS_AN_INCH)
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    draw(axes, result)
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("seconds")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    figure.savefig(path, dpi=110)


def _from_zero(axes: Axes) -> None:
    """Begin the axis at 0, with some room above the highest value."""
    axes.set_ylim(0, axes.dataLim.y1 * 1.08 or 1)


def _series(result: Json, name: str) -> tuple[list[float], list[float]]:
    run = result["openloop"]
    # The last second is incomplete, which would look like a fall of the rate.
    complete = max(math.ceil(run["seconds"]), int(run["elapsed"]))
    rows = run["series"][:complete]
    return [row["at"] for row in rows], [row[name] for row in rows]


def _rates(axes: Axes, result: Json) -> None:
    axes.plot(*_series(result, "planned"), color=OFFERED, label="offered", linewidth=3, alpha=0.5)
    axes.plot(*_series(result, "answered"), color=ANSWERED, label="answered 201")
    axes.set_ylabel("requests a second")
    _from_zero(axes)


def _latencies(axes: Axes, result: Json) -> None:
    _plot_quantiles(axes, result, QUANTILES)


def _plot_quantiles(axes: Axes, result: Json, names: Iterable[str]) -> None:
    for name in names:
        label = name.replace("p999", "p99.9")
        at, latencies = _series(result, name)
        # A second without a 201 has no latency, which differs from 0.
        axes.plot(
            at,
            [latency or math.nan for latency in latencies],
            color=QUANTILES[name],
            label=label,
            linewidth=1.2,
        )
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel("ms from the planned time")


def _spikes(axes: Axes, result: Json) -> None:
    _plot_quantiles(axes, result, ("p50", "p99", "p999"))
    limit = find_limit(result)
    axes.axhline(limit, color=OFFERED, linewidth=0.8, linestyle="--", label="2 x median p99")
    spikes = find_spikes(result)
    for name, colour in CAUSES.items():
        # A spike with several causes has the colour of the first.
        points = [(spike.at, spike.p99) for spike in spikes if spike.causes[0] == name]
        if points:
            at, p99 = zip(*points, strict=True)
            axes.plot(at, p99, "o", ms=4.5, color=colour, mec="black", mew=0.6, label=name)
    for height, name in enumerate((ROLL, REWRITE)):
        starts = [event["at"] for event in result["events"] if event["name"] == name]
        heights = [0.02 + 0.04 * height] * len(starts)
        below = axes.get_xaxis_transform()
        axes.plot(starts, heights, "|", color=CAUSES[name], transform=below, label=f"{name}s")
    axes.set_xlim(0, result["openloop"]["seconds"])


def _errors(axes: Axes, result: Json) -> None:
    axes.plot(*_series(result, "refused"), color=REFUSED, label="refused")
    axes.plot(*_series(result, "failed"), color=EXIT_FAILED, label="unknown or\nnot sent")
    axes.set_ylabel("requests a second")
    _from_zero(axes)


def _backlog(axes: Axes, result: Json) -> None:
    samples = result["samples"]
    axes.plot([s["at"] for s in samples], [s["backlog"] for s in samples], color="#1c7ed6")
    axes.set_ylabel("usages not archived yet")
    _from_zero(axes)


def _memory(axes: Axes, result: Json) -> None:
    for name in _parts(result, "resident"):
        samples = [entry for entry in result["samples"] if name in entry["resident"]]
        resident_mib = [entry["resident"][name] / MIB for entry in samples]
        axes.plot([entry["at"] for entry in samples], resident_mib, label=name)
    axes.set_ylabel("resident MiB")
    _from_zero(axes)


def _cpu(axes: Axes, result: Json) -> None:
    rate = result["openloop"]["created"] / max(
        result["openloop"]["elapsed"], result["openloop"]["seconds"]
    )
    for name in _parts(result, "cpu"):
        samples = [entry for entry in result["samples"] if name in entry["cpu"]]
        points = [
            (new["at"], (new["cpu"][name] - old["cpu"][name]) / (new["at"] - old["at"]) / rate)
            for old, new in pairwise(samples)
            if new["at"] > old["at"]
        ]
        axes.plot(
            [at for at, _ in points], [cpu_seconds * 1e6 for _, cpu_seconds in points], label=name
        )
    axes.set_ylabel("CPU µs a usage, at the mean rate")
    _from_zero(axes)


def _replicas(axes: Axes, result: Json) -> None:
    samples = [entry for entry in result["samples"] if entry["replicas"] is not None]
    axes.step(
        [s["at"] for s in samples], [s["replicas"] for s in samples], where="post", color="#7048e8"
    )
    axes.set_ylabel("ready API pods")
    _from_zero(axes)


def _parts(result: Json, what: str) -> Iterable[str]:
    return dict.fromkeys(name for entry in result["samples"] for name in entry[what])


def _has_samples(what: str) -> Callable[[Json], bool]:
    return lambda result: any(entry[what] not in (None, {}) for entry in result["samples"])


def _has_openloop(result: Json) -> bool:
    return bool(result["openloop"])


def _has_created(result: Json) -> bool:
    return _has_openloop(result) and result["openloop"]["created"] > 0


def _has_spikes(result: Json) -> bool:
    return _has_created(result) and has_causes(result)


def _has_cost(result: Json) -> bool:
    return _has_created(result) and bool(compute_cost(result))


PICTURES: dict[str, tuple[str, Callable[[Json], bool], Draw]] = {
    "Offered and achieved": ("rate", _has_openloop, _rates),
    "Latency of a 201": ("latency", _has_created, _latencies),
    "Latency of each second, its spikes (dots) and their causes": ("spikes", _has_spikes, _spikes),
    "Refused, unknown, not sent": ("errors", _has_openloop, _errors),
    "Backlog": ("backlog", _has_samples("backlog"), _backlog),
    "Memory": ("memory", _has_samples("resident"), _memory),
    "CPU a usage": ("cpu", _has_cost, _cpu),
    "Replicas": ("replicas", _has_samples("replicas"), _replicas),
}
"""Title -> the file's name, whether there is data, and the function that draws."""

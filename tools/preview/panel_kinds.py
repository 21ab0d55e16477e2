"""Draw each kind of panel from the curves of its queries."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from tools.preview.canvas import (
    CARD,
    FAINT,
    GRID,
    NAMED,
    NORMAL,
    PALETTE,
    SMALL,
    TEXT,
    Box,
    Sheet,
    format_time,
    shorten,
    width,
)
from tools.preview.panel_queries import Choice, Curve, Json
from tools.preview.units import format_value

HEAT = LinearSegmentedColormap.from_list("heat", ["#2b1d14", "#a5480b", "#ff9830", "#fff2cc"])
LEFT, RIGHT, TOP, BOTTOM, LINE = 92, 14, 34, 22, 17
"""Pixels in a panel: margins around its axes, and the height of a line of the legend."""
MAX_LEGEND_LINES = 2
ENTRY = 34
"""Pixels of an entry of the legend, without its name."""
BOLD = 1.2
"""Ratio of the width of bold letters to that of normal ones."""
MIN_COUNT = 1e-9
"""A bucket with less is empty."""
TIMES = (1, 10, 60, 600, 3600, 21_600, 86_400, 604_800, 6_048_000)
"""The ticks of a logarithmic axis, in seconds."""


def _lines(sheet: Sheet, box: Box, panel: Json, curves: list[Curve], choice: Choice) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    colors = [_color(panel, number, curve) for number, curve in enumerate(curves)]
    legend = _legend(box.w - 24, curves, colors)
    axes = sheet.axes(_inside(box, len(legend)))
    below = 0.0
    stacked = defaults["custom"]["stacking"]["mode"] == "normal"
    grid = np.arange(choice.start, choice.end + choice.step / 2, choice.step)
    for curve, color in zip(curves, colors, strict=True):
        values = _place_on_grid(grid, curve, choice.step)
        there = ~np.isnan(values)
        if stacked:
            values = np.nan_to_num(values) + below
        axes.plot(grid, np.where(there, values, np.nan), color=color, linewidth=1.1)
        fill = 0.35 if stacked else 0.07
        axes.fill_between(grid, values, below, color=color, alpha=fill, linewidth=0)
        if stacked:
            below = values
    _scale(axes, defaults)
    _time_axis(axes, choice)
    _write_legend(sheet, box, legend)


def _color(panel: Json, number: int, curve: Curve) -> str:
    for entry in reversed(panel["fieldConfig"]["overrides"]):  # of several, the last counts
        if re.match(entry["matcher"]["options"].strip("/"), curve.name):
            return NAMED[entry["properties"][0]["value"]["fixedColor"]]
    return PALETTE[number % len(PALETTE)]


def _place_on_grid(grid: Any, curve: Curve, step: float) -> Any:
    """Return a curve on the grid. It is NaN where it has no point, so that a gap is visible."""
    values = np.full(len(grid), np.nan)
    for at, value in curve.points:
        values[min(round((at - grid[0]) / step), len(grid) - 1)] = value
    return values


def _scale(axes: Axes, defaults: Json) -> None:
    unit = defaults["unit"]
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    if defaults["custom"]["scaleDistribution"]["type"] == "log":
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator(TIMES))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_value(value, unit)))
        return
    highest = max(np.nanmax(line.get_ydata()) for line in axes.get_lines()) * 1.05
    for step in defaults["thresholds"]["steps"][1:]:
        if step["value"] <= highest * 3 and defaults["custom"]["thresholdsStyle"]["mode"] == "line":
            axes.axhline(step["value"], color=NAMED[step["color"]], linewidth=1, linestyle="--")
            highest = max(highest, step["value"] * 1.1)
    top = defaults.get("max") or (highest if highest > 0 else 1)
    axes.set_ylim(0, top)
    axes.yaxis.set_major_locator(FixedLocator(_ticks(top, defaults)))


def _ticks(top: float, defaults: Json) -> list[float]:
    """Return round values up to a limit: for bytes round in KiB or MiB, below a day in hours."""
    base = 1.0
    if defaults["unit"] in {"bytes", "binBps"}:
        base = 1024.0 ** max(0, math.floor(math.log(top, 1024)))
    elif defaults["unit"] == "d" and top < 1:
        base = 1 / 24
    ticks = MaxNLocator(4, integer=defaults.get("decimals") == 0).tick_values(0, top / base)
    return [tick * base for tick in ticks if tick * base <= top]


def _time_axis(axes: Axes, choice: Choice) -> None:
    axes.set_xlim(choice.start, choice.end)
    span = choice.end - choice.start
    every = next(
        entry for entry in (10, 20, 30, 60, 120, 300, 600, 1800, 3600) if span / entry <= 6
    )
    first = math.ceil((choice.start + span * 0.06) / every) * every
    axes.set_xticks(np.arange(first, choice.end - span * 0.03, every))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: format_time(at)))
    axes.grid(axis="x", color=GRID, linewidth=0.8)


def _inside(box: Box, legend_lines: int) -> Box:
    below = BOTTOM + legend_lines * LINE
    return Box(box.x + LEFT, box.y + TOP, box.w - LEFT - RIGHT, box.h - TOP - below)


Entry = tuple[str, str]


def _legend(room: float, curves: Sequence[Curve], colors: Sequence[str]) -> list[list[Entry]]:
    """Break the names into lines. Names that do not fit are counted."""
    lines: list[list[Entry]] = [[]]
    used = 0.0
    for number, (curve, color) in enumerate(zip(curves, colors, strict=True)):
        needed = width(curve.name, SMALL) + ENTRY
        if used + needed > room and lines[-1] and len(lines) < MAX_LEGEND_LINES:
            lines.append([])
            used = 0
        last = number == len(curves) - 1
        more = (f"and {len(curves) - number} more", FAINT)
        rest = 0 if last or len(lines) < MAX_LEGEND_LINES else width(more[0], SMALL) + ENTRY
        if used + needed + rest > room and lines[-1]:
            lines[-1].append(more)
            break
        lines[-1].append((curve.name, color))
        used += needed
    return lines


def _write_legend(sheet: Sheet, box: Box, lines: list[list[Entry]]) -> None:
    y = box.y + box.h - len(lines) * LINE + 4
    for line in lines:
        x = box.x + 14
        for name, color in line:
            sheet.write(x, y, "▬", color=color, fontsize=SMALL)
            sheet.write(x + 16, y, name, color=TEXT, fontsize=SMALL)
            x += width(name, SMALL) + ENTRY
        y += LINE


def _number(sheet: Sheet, box: Box, panel: Json, curves: list[Curve], choice: Choice) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    value = curves[0].points[-1][1]
    color = choose_color(value, defaults["thresholds"]["steps"])
    axes = sheet.axes(Box(box.x + 1, box.y + box.h * 0.62, box.w - 2, box.h * 0.38 - 1))
    at, values = zip(*curves[0].points, strict=True)
    axes.fill_between(at, values, min(0, *values), color=color, alpha=0.18, linewidth=0)
    axes.plot(at, values, color=color, linewidth=1)
    axes.set_xlim(choice.start, choice.end)
    axes.set_ylim(min(0, *values), max(*values, 1e-9) * 1.1)
    axes.axis("off")
    text = _map_text(value, defaults) or format_value(
        value, defaults["unit"], defaults.get("decimals")
    )
    size = min(24.0, 24 * (box.w - 30) / (BOLD * width(text, 24)))
    middle = box.y + 16 + (box.h - 16) * 0.42
    sheet.write(
        box.x + box.w / 2, middle, text, ha="center", fontsize=size, color=color, weight="bold"
    )


def choose_color(value: float, steps: Sequence[Json]) -> str:
    """Return the colour of the last step that a value has reached. The first has no limit."""
    reached = [step for step in steps if step["value"] is None or step["value"] <= value]
    return NAMED[reached[-1]["color"]]


def _map_text(value: float, defaults: Json) -> str:
    for mapping in defaults.get("mappings", []):
        if match := mapping["options"].get(f"{value:g}"):
            return str(match["text"])
    return ""


def _heatmap(sheet: Sheet, box: Box, panel: Json, curves: list[Curve], choice: Choice) -> None:
    bounds = sorted(curves, key=lambda curve: float(curve.labels["le"]))
    grid = np.arange(choice.start, choice.end + choice.step / 2, choice.step)
    below = np.array([np.nan_to_num(_place_on_grid(grid, bound, choice.step)) for bound in bounds])
    cells = np.diff(below, axis=0, prepend=0)
    shown = np.ma.masked_less_equal(cells, MIN_COUNT)
    axes = sheet.axes(_inside(box, 0))
    edges = np.append(grid, grid[-1] + choice.step)
    axes.pcolormesh(
        edges,
        np.arange(len(bounds) + 1),
        np.sqrt(shown),
        cmap=HEAT,
        edgecolor=CARD,
        linewidth=0.2,
    )
    used = np.flatnonzero(cells.max(axis=1) > MIN_COUNT)
    unit = panel["options"]["yAxis"]["unit"]
    names = [bound.labels["le"] for bound in bounds]
    axes.set_yticks(np.arange(len(names)) + 1)
    axes.set_yticklabels(["" if n == "+Inf" else format_value(float(n), unit) for n in names])
    axes.set_ylim(max(0, used[0] - 1), min(len(bounds), used[-1] + 2))
    _time_axis(axes, choice)
    axes.grid(visible=False)


def _table(sheet: Sheet, box: Box, panel: Json, curves: list[Curve], _: Choice) -> None:
    arranged = panel["transformations"][1]["options"]
    columns = sorted(arranged["indexByName"], key=arranged["indexByName"].__getitem__)
    shares = [2.2, *([1.0] * (len(columns) - 1))]
    starts = np.cumsum([0, *shares]) / sum(shares) * (box.w - 24)
    rows = [[arranged["renameByName"][column] for column in columns]]
    rows += [[curve.labels.get(name, "") for name in columns] for curve in curves]
    fitting = int((box.h - TOP) / LINE)
    for number, row in enumerate(rows[:fitting]):
        for start, end, text in zip(starts, starts[1:], row, strict=False):
            sheet.write(
                box.x + 12 + start,
                box.y + TOP + 8 + number * LINE,
                shorten(text, NORMAL, end - start - 8),
                color=FAINT if number == 0 else TEXT,
            )


Kind = Callable[[Sheet, Box, Json, list[Curve], Choice], None]
KINDS: dict[str, Kind] = {
    "timeseries": _lines,
    "stat": _number,
    "heatmap": _heatmap,
    "table": _table,
}

"""The sheet of a dashboard: each panel's place in pixels, colours, and text."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

DPI = 100
COLUMN, ROW, GAP, EDGE, HEAD = 66, 36, 8, 14, 64
"""Pixels of a grid column, a grid row, the gap between panels, the border, and the head."""
WIDTH = 24 * COLUMN + 2 * EDGE

PAPER, CARD, FRAME = "#111217", "#181b1f", "#24272d"
TEXT, FAINT, GRID = "#d8d9dd", "#8e9099", "#2c3038"
NAMED = {
    "green": "#73bf69",
    "yellow": "#f2cc0c",
    "orange": "#ff9830",
    "red": "#f2495c",
    "blue": "#5794f2",
}
PALETTE = (
    "#73bf69",
    "#f2cc0c",
    "#5794f2",
    "#ff9830",
    "#f2495c",
    "#b877d9",
    "#6ed0e0",
    "#fade2a",
    "#8ab8ff",
    "#ffa6b0",
)
SMALL, NORMAL, TITLE = 7.5, 8.5, 9.5
LETTER = 0.58
"""Average ratio of a letter's width to its height, rather too large than too small."""


def width(text: str, size: float) -> float:
    """Estimate the width of a text in pixels."""
    return len(text) * size * LETTER * DPI / 72


def shorten(text: str, size: float, room: float) -> str:
    """Shorten a text to this many pixels."""
    if width(text, size) <= room:
        return text
    letters = max(1, int(room / (size * LETTER * DPI / 72)) - 1)
    return text[:letters].rstrip() + "…"


def format_time(at: float) -> str:
    """Return a time of day in UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, from the top left of the sheet."""

    x: float
    y: float
    w: float
    h: float


class Sheet:
    """The picture of one dashboard."""

    def __init__(self, height: int) -> None:
        self.height = HEAD + height * ROW + EDGE
        self.figure = Figure(figsize=(WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor=PAPER)

    def box(self, grid: dict[str, int]) -> Box:
        """Return the place of a panel."""
        return Box(
            EDGE + grid["x"] * COLUMN + GAP / 2,
            HEAD + grid["y"] * ROW + GAP / 2,
            grid["w"] * COLUMN - GAP,
            grid["h"] * ROW - GAP,
        )

    def card(self, box: Box) -> None:
        """Draw a panel's background."""
        x, y = box.x / WIDTH, 1 - (box.y + box.h) / self.height
        patch = FancyBboxPatch(
            (x, y),
            box.w / WIDTH,
            box.h / self.height,
            boxstyle="square,pad=0",
            transform=self.figure.transFigure,
            facecolor=CARD,
            edgecolor=FRAME,
            linewidth=1,
            zorder=-1,
        )
        self.figure.add_artist(patch)

    def write(self, x: float, y: float, text: str, **style: Any) -> None:
        """Write a text, vertically centred at y."""
        defaults = {"color": TEXT, "fontsize": NORMAL, "va": "center", "ha": "left"}
        self.figure.text(x / WIDTH, 1 - y / self.height, text, **{**defaults, **style})

    def axes(self, box: Box) -> Axes:
        """Return axes that fill a rectangle."""
        place = (box.x / WIDTH, 1 - (box.y + box.h) / self.height, box.w / WIDTH)
        axes = self.figure.add_axes((*place, box.h / self.height), facecolor="none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(colors=FAINT, labelsize=SMALL, length=0)
        return axes

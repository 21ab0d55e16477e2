"""A dashboard's picture: its panels, each in its place."""

import io
from pathlib import Path

import matplotlib as mpl
from PIL import Image

from tools.preview.canvas import DPI, FAINT, HEAD, TITLE, Sheet, clock, shorten
from tools.preview.panel_kinds import KINDS
from tools.preview.panel_queries import Choice, Curve, Json

COLORS = 256


def draw(dashboard: Json, answers: dict[int, list[Curve]], choice: Choice, path: Path) -> list[str]:
    """Write the picture, and name the panels that should have data and have none."""
    mpl.use("Agg")
    panels = dashboard["panels"]
    sheet = Sheet(max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels))
    sheet.write(18, HEAD / 2, dashboard["title"], fontsize=15, fontweight="bold")
    times = f"{clock(choice.start)} to {clock(choice.end)} UTC"
    shown = f"{choice.namespace} / {choice.release}   {times}"
    sheet.write(sheet.figure.get_figwidth() * DPI - 18, HEAD / 2, shown, ha="right", color=FAINT)
    bare = [p["title"] for p in panels if _panel(sheet, p, answers.get(p["id"], []), choice)]
    _save(sheet, path)
    return bare


def _save(sheet: Sheet, path: Path) -> None:
    """Write it with as many colours as it takes: it is a third of the size then."""
    whole = io.BytesIO()
    sheet.figure.savefig(whole, dpi=DPI, facecolor=sheet.figure.get_facecolor())
    with Image.open(whole) as picture:
        few = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        few.save(path, optimize=True)


def _panel(sheet: Sheet, panel: Json, curves: list[Curve], choice: Choice) -> bool:
    """Draw one, and tell whether it lacks what it should have."""
    box = sheet.box(panel["gridPos"])
    if panel["type"] == "row":
        sheet.write(box.x, box.y + box.h / 2, panel["title"], fontsize=11, fontweight="bold")
        return False
    sheet.card(box)
    title = shorten(panel["title"], TITLE, box.w - 20)
    sheet.write(box.x + 10, box.y + 16, title, fontsize=TITLE, fontweight="bold")
    if curves:
        KINDS[panel["type"]](sheet, box, panel, curves, choice)
        return False
    text, lacks = _absence(panel)
    sheet.write(box.x + box.w / 2, box.y + box.h / 2 + 6, text, ha="center", color=FAINT)
    return lacks


def _absence(panel: Json) -> tuple[str, bool]:
    none = panel["fieldConfig"]["defaults"].get("noValue")
    if none:
        return none, False
    _, _, needs = panel["description"].partition(" Needs ")
    if needs:
        return f"no data here: needs {needs.partition(' (')[0].rstrip('.')}", False
    return "No data", True

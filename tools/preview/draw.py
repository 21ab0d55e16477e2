"""Draw a dashboard: each panel in its place."""

import io
from pathlib import Path

import matplotlib as mpl
from PIL import Image

from tools.preview.canvas import DPI, FAINT, HEAD, TITLE, Sheet, format_time, shorten
from tools.preview.panel_kinds import KINDS
from tools.preview.panel_queries import Choice, Curve, Json

COLORS = 256


def draw_dashboard(
    dashboard: Json, answers: dict[int, list[Curve]], choice: Choice, path: Path
) -> list[str]:
    """Write the picture; return the titles of panels that lack data that they should have."""
    mpl.use("Agg")
    panels = dashboard["panels"]
    sheet = Sheet(max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in panels))
    sheet.write(18, HEAD / 2, dashboard["title"], fontsize=15, fontweight="bold")
    times = f"{format_time(choice.start)} to {format_time(choice.end)} UTC"
    shown = f"{choice.namespace} / {choice.release}   {times}"
    sheet.write(sheet.figure.get_figwidth() * DPI - 18, HEAD / 2, shown, ha="right", color=FAINT)
    bare = [p["title"] for p in panels if _panel(sheet, p, answers.get(p["id"], []), choice)]
    _save(sheet, path)
    return bare


def _save(sheet: Sheet, path: Path) -> None:
    """Write the picture with a palette: it takes a third of the bytes."""
    full = io.BytesIO()
    sheet.figure.savefig(full, dpi=DPI, facecolor=sheet.figure.get_facecolor())
    with Image.open(full) as picture:
        reduced = picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
        reduced.save(path, optimize=True)


def _panel(sheet: Sheet, panel: Json, curves: list[Curve], choice: Choice) -> bool:
    """Draw a panel; return whether it lacks data that it should have."""
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
    no_value = panel["fieldConfig"]["defaults"].get("noValue")
    if no_value:
        return no_value, False
    _, _, needs = panel["description"].partition(" Needs ")
    if needs:
        return f"no data here: needs {needs.partition(' (')[0].rstrip('.')}", False
    return "No data", True

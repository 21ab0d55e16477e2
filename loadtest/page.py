"""The report as one HTML file with its pictures and styles. It loads nothing."""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import astuple
from html import escape
from pathlib import Path
from typing import Any

from loadtest.compare import format_number, list_figures
from loadtest.k6 import read_thresholds
from loadtest.reconcile import HEAD, Row, cells
from loadtest.result import Json
from loadtest.spikes import find_limit, has_causes, summarise_causes

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#212529;max-width:1000px}
body{margin:2em auto;padding:0 1em}
h1{margin-bottom:0}h2{margin-top:1.8em;border-bottom:1px solid #dee2e6}
.verdict{font-weight:600;padding:.6em 1em;border-radius:6px;margin:1em 0}
.good{background:#d3f9d8;color:#2b8a3e}.bad{background:#ffe3e3;color:#c92a2a}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6em 0}
th,td{padding:.25em .8em;text-align:right;border-bottom:1px solid #e9ecef}
th:first-child,td:first-child{text-align:left}th{background:#f8f9fa}
img{max-width:100%;display:block;margin:.4em 0}.wide{overflow-x:auto}.faint{color:#868e96}
ul{margin:.2em 0}
"""


def render_page(result: Json, pictures: Mapping[str, Path]) -> str:
    """Return the HTML of a result."""
    limits, has_limits = _thresholds(result["k6"])
    parts = [
        f"<h1>Load test</h1><p class=faint>{escape(str(result['about'].get('when', '')))}</p>",
        _verdict(result["failures"], has_thresholds=has_limits),
        _section("Counts, and whether they agree", _counts(result)),
        _section("Thresholds", limits),
        _section("Open loop", _pairs(list_figures(result), format_number)),
        _section("Over time", "".join(map(_image, pictures, pictures.values()))),
        _section("Spikes", _spikes(result)),
        _section("Cores used on this machine", _pairs(result["cores"].items(), "{:.2f}".format)),
        _section("k6", _k6(result["k6"])),
        _section("Setup", _pairs(result["about"].items(), str)),
    ]
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>busyapi load test</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{STYLE}</style>{''.join(parts)}</html>\n"
    )


def _verdict(failures: Sequence[str], *, has_thresholds: bool) -> str:
    if not failures:
        held = "every threshold held" if has_thresholds else "there were no thresholds"
        return f"<p class='verdict good'>All counts agree, and {held}.</p>"
    items = "".join(f"<li>{escape(failure)}</li>" for failure in failures)
    return f"<div class='verdict bad'>Failed:<ul>{items}</ul></div>"


def _thresholds(summaries: Mapping[str, Json]) -> tuple[str, bool]:
    """Return the table of thresholds, and whether there are any."""
    rows = [
        (
            threshold.metric,
            script,
            threshold.limit,
            "not measured" if threshold.value is None else f"{threshold.value:,.4g}",
            "crossed" if threshold.is_crossed else "held",
        )
        for script, metrics in summaries.items()
        for threshold in read_thresholds(metrics)
    ]
    if not rows:
        why = "no k6 script ran" if not summaries else "the k6 scripts have none"
        return f"<p>There were no thresholds: {why}.</p>", False
    return _table(("metric", "script", "limit", "value", "outcome"), rows), True


def _section(title: str, body: str) -> str:
    return f"<h2>{escape(title)}</h2>{body}" if body else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    top = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<div class=wide><table><tr>{top}</tr>{lines}</table></div>"


def _pairs(pairs: Iterable[tuple[str, Any]], show: Callable[[Any], str]) -> str:
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(show(value))}</td></tr>" for name, value in pairs
    )
    return f"<table>{lines}</table>" if lines else ""


def _counts(result: Json) -> str:
    rows = [Row(**row) for row in result["rows"]]
    proven = all(row.proven for row in rows)
    how = "by busyapi archive verify" if proven else "by the API; its archive cannot be reached"
    return _table(HEAD, map(cells, rows)) + f"<p class=faint>Archived: {how}.</p>"


def _spikes(result: Json) -> str:
    if not has_causes(result):
        return ""
    rows = [
        (group.causes, *map(format_number, astuple(group)[1:]))
        for group in summarise_causes(result)
    ]
    head = ("what happened", "seconds", "spikes", "median p99, ms", "maximum p99, ms")
    note = f"<p class=faint>A spike: a p99 above {find_limit(result):.1f} ms, twice the median.</p>"
    return _table(head, rows) + note


def _image(title: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'


def _k6(summaries: Mapping[str, Json]) -> str:
    head = ("script", "requests", "a second", "dropped", "p50 ms", "p95 ms", "p99 ms", "max ms")
    rows = []
    for name, metrics in summaries.items():
        duration: Json = metrics.get("http_req_duration{due:201}") or metrics["http_req_duration"]
        requests = metrics["http_reqs"]
        dropped = metrics.get("dropped_iterations", {}).get("count", 0)
        quantiles = (f"{duration[name]:,.1f}" for name in ("med", "p(95)", "p(99)", "max"))
        counts = (f"{requests['count']:,.0f}", f"{requests['rate']:,.0f}", f"{dropped:,.0f}")
        rows.append((name, *counts, *quantiles))
    if not rows:
        return ""
    note = "<p class=faint>The latencies include the milliseconds of k6 itself.</p>"
    return _table(head, rows) + note

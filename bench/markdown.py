"""The report as Markdown, for people and for the README."""

from collections.abc import Iterable, Sequence

from bench.outcome import Outcome
from bench.report import Report
from bench.runs import median_run

MIB = 2**20


def render(report: Report) -> str:
    """Return the whole report as Markdown."""
    parts = (
        _failures(report.failures),
        _rates(report.rows),
        _ratios(report),
        _processes(report.rows),
        _counts(report.rows),
        _goals(report),
        _machine(report),
        _commands(report.rows),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _failures(failures: Sequence[str]) -> str:
    return "\n".join(["FAILED", "", *(f"- {failure}" for failure in failures)]) if failures else ""


def _rates(rows: Iterable[Outcome]) -> str:
    head = (
        "median run",
        "usages/s",
        "each run",
        "p50 ms",
        "p99 ms",
        "lag s",
        "behind",
        "fast path",
        "errors",
        "kept",
    )
    return table(head, (_rate_cells(row) for row in rows))


def _rate_cells(row: Outcome) -> tuple[str, ...]:
    run = median_run(row.runs)
    lags = [run.lag for run in row.runs if run.lag]
    return (
        row.title,
        f"{run.usages_per_second:,.0f}",
        " · ".join(f"{run.usages_per_second:,.0f}" for run in row.runs),
        f"{run.wrk.p50_ms:.1f}",
        f"{run.wrk.p99_ms:.1f}",
        f"{max(lag.seconds for lag in lags):.1f}" if lags else "",
        f"{max(lag.usages for lag in lags):,}" if lags else "",
        "" if run.fast_path_share is None else f"{100 * run.fast_path_share:.1f} %",
        f"{row.not_201:,}",
        row.keeps,
    )


def _ratios(report: Report) -> str:
    return "\n".join(
        f"- {report.scenarios[name][0].title} / {title}: {ratio:.2f} (median of the rounds' ratios)"
        for name, ratios in report.ratios.items()
        for title, ratio in ratios.items()
    )


def _processes(rows: Iterable[Outcome]) -> str:
    head = ("process", "resident MiB at the end", "CPU seconds for a million usages")
    return table(head, (cells for row in rows for cells in _process_cells(row)))


def _process_cells(row: Outcome) -> list[tuple[str, ...]]:
    resident, cpu = row.runs[-1].resident_bytes, median_run(row.runs).cpu_per_million
    return [
        (f"{row.title}: {name}", f"{resident[name] / MIB:.0f}", f"{cpu[name]:.2f}") for name in cpu
    ]


def _counts(rows: Iterable[Outcome]) -> str:
    head = ("usages", "sent", "stored", "counted", "archived", "in files", "201 seen", "")
    return table(head, (_count_cells(row) for row in rows if row.counts))


def _count_cells(row: Outcome) -> tuple[str, ...]:
    assert row.counts  # noqa: S101 - the caller checks it
    counts = row.counts
    figures = (
        counts.sent,
        counts.stored,
        counts.counted,
        counts.archived,
        counts.lines,
        counts.seen,
    )
    verdict = "FAILED" if row.failures else "agree"
    return (row.title, *(f"{figure:,}" for figure in figures), verdict)


def _goals(report: Report) -> str:
    head = ("goal", "threshold", "value", "")
    return table(
        head,
        (
            (goal.what, goal.threshold, goal.value, "met" if goal.met else "not met")
            for goal in report.goals
        ),
    )


def _machine(report: Report) -> str:
    here = report.machine
    where = f"{here.cores} cores of {here.cpu}, {here.memory_gib} GiB, {here.kernel}"
    lines = [f"- {where}, {here.file_system}; load {here.load_before} before the start"]
    versions = {name: text for row in report.rows for name, text in row.versions.items()}
    if versions:
        lines.append("- " + ", ".join(f"{name} {text}" for name, text in versions.items()))
    durable = next((row for row in report.rows if row.durability), None)
    if durable:
        lines_ = (f"{name} {value or 'off'}" for name, value in durable.durability.items())
        lines.append(f"- Valkey's configuration: {', '.join(lines_)}")
        lines.append("- busyapi: default settings, except ports and folders")
    if not here.on_disk:
        lines.append("- NOT ON DISK: every fsync was free; choose another --folder")
    return "\n".join(lines)


def _commands(rows: Iterable[Outcome]) -> str:
    lines = []
    for row in rows:
        lines += [f"# {row.title}", *row.commands]
    return "\n".join(f"    {line}" for line in lines)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with right-aligned figures."""
    body = list(rows)
    if not body:
        return ""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

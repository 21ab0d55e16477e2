"""Each alert has a runbook with the same headings, and a runbook names only what exists."""

import re

import pytest

from busyapi.telemetry.metrics import ApiMetrics
from testkit.docs.runbook_rules import check_page, collect_known_names
from testkit.docs.runbooks import RUNBOOKS, Page, pages, parse

KNOWN = collect_known_names()
PAGES = {page.name: page for page in pages()}
GOOD = PAGES["BusyapiArchiveDiskFull"]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_page_has_the_headings_and_names_only_what_exists(page: Page) -> None:
    assert check_page(page, KNOWN) == []


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert PAGES.keys() == KNOWN.alerts.keys()


def test_index_has_every_page_with_the_severities_of_its_alert() -> None:
    rows = re.findall(
        r"^\| \[(\w+)\]\((\w+)\.md\) \| ([a-z, ]+) \| \S.* \| \S.* \|$", read_index(), re.MULTILINE
    )
    assert all(name == target for name, target, _ in rows)
    severities_by_page = {name: set(severities.split(", ")) for name, _, severities in rows}
    assert severities_by_page == KNOWN.alerts
    assert len(rows) == len(severities_by_page)


def read_index() -> str:
    return (RUNBOOKS / "README.md").read_text()


def test_every_page_is_linked_from_a_panel_and_every_link_exists() -> None:
    assert KNOWN.links.keys() == PAGES.keys()


def test_every_reason_of_a_refusal_has_a_row_that_says_what_to_do() -> None:
    text = PAGES["BusyapiAvailabilityBurn"].text
    (table,) = re.findall(r"^ *\| reason \|.*\n(?: *\|.*\n)+", text, re.MULTILINE)
    rows = (row.split("|")[1] for row in table.splitlines()[2:])
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(ApiMetrics("fsync").refused)


BREAKS = {
    "its title": ("# BusyapiArchiveDiskFull", "# BusyapiDiskFull"),
    "its headings": ("## Do not", "## What must not be done"),
    "no query": ("```promql", "```sh"),
    "is marked": ("```sh decides", "```sh does"),
    "is 'and writes it there', not '**Cannot be undone:**'": (
        "**Cannot be undone:**",
        "and writes it there",
    ),
    "above a block marked  is '**Cannot be undone:**'": (
        "```sh decides e2e/scenarios/runbooks.py::grow_volume",
        "```sh",
    ),
    "Diagnose does not begin": ("export NAMESPACE", "NAMESPACE"),
    "nothing sets $P": ("busyapi P=0", "busyapi"),
    "nothing sets $WORK": ("export WORK=", "export FOLDER="),
    "no panel Errors of Data path": ("*Archive errors*", "*Errors*"),
    "none of its panels": (
        "ls *Archive errors* and *Archive volume used* of",
        "l *Archive write rate* of",
    ),
    "no metric busyapi_errors_total": ("busyapi_archive_errors_total", "busyapi_errors_total"),
    "no metric busyapi:errors:max": ("busyapi_archive_errors_total", "busyapi:errors:max"),
    "busyapi_archive_errors_total is read in all": ('{namespace="busyapi", kind', "{kind"),
    "nothing says that the queries": (", and write its namespace into the queries", ""),
    "a curl has no timeout": ("curl -s -m 5", "curl -s"),
    "no setting BUSYAPI_BOUNDS": ("its bound.\n", "`BUSYAPI_BOUNDS`.\n"),
    "no value config.keepDays": ("config.retentionDays", "config.keepDays"),
    "no log event disk_full": ("Nothing restarts,", "The log event `disk_full`,"),
    "no reason DiskFull": (
        "## Do not",
        "| reason | do |\n|---|---|\n| `DiskFull` | wait |\n\n## Do not",
    ),
    "no message contains no space at all": (
        "## Do not",
        "| message contains | do |\n|---|---|\n| no space at all | wait |\n\n## Do not",
    ),
    "changes something": ("## Do not", "## Do not\n\n```sh changes\nls\n```"),
    "has a number, not a word: --set config.bound=2": (
        'patch pvc archive-busyapi-flusher-$P -p \'{"spec"',
        'upgrade busyapi --set config.bound=2 \'{"spec"',
    ),
    'has a number, not a word: "maxReplicas":1': (
        '{"requests":{"storage":"SIZE"}}',
        '{"maxReplicas":12}',
    ),
    "busyapi has no command": ("busyapi archive ls", "busyapi archive list"),
    "names no test": ("runbooks.py::grow_volume", "books.py::grow"),
    "there is no grown": ("runbooks.py::grow_volume", "runbooks.py::grown"),
    "a link is broken": ("(BusyapiBufferFilling.md#", "(BusyapiBuffer.md#"),
    "a link is broken: BusyapiBufferFilling.md#see": ("Filling.md#diagnose", "Filling.md#see"),
}


@pytest.mark.parametrize("problem", BREAKS)
def test_broken_page_is_found(problem: str) -> None:
    old, new = BREAKS[problem]
    assert old in GOOD.text
    page = parse(GOOD.name, GOOD.text.replace(old, new))
    assert any(problem in text for text in check_page(page, KNOWN))


def test_page_without_a_command_under_verify_recovery_is_found() -> None:
    head, heading, _ = GOOD.text.partition("## Verify recovery")
    page = parse(GOOD.name, f"{head}{heading}\n\nYou will see.\n\n## Escalate\n")
    assert check_page(page, KNOWN) == ["no command under Verify recovery"]


def test_page_without_an_alert_is_found() -> None:
    page = parse("BusyapiAllIsWell", GOOD.text)
    assert "there is no alert BusyapiAllIsWell" in check_page(page, KNOWN)


@pytest.mark.parametrize("text", ["```sh\nls\n", "## A\n```text\nall\n```\n"])
def test_page_that_cannot_be_parsed_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"block|output"):
        parse("Broken", text)

"""The runbooks' commands and queries work on healthy processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testkit.docs.runbook_rules import FOREIGN_METRICS, NAMESPACE_SELECTOR, ROOT
from testkit.docs.runbook_shell import StackShell
from testkit.docs.runbooks import RECOVERY, Page, pages, parse
from testkit.processes import Stack
from testkit.prometheus import NAMESPACE, Prometheus
from testkit.servers import Server
from testkit.waiting import wait_until

PAGES = {page.name: page for page in pages(index=True)}
SAME_IN_FAULT = {"BusyapiTargetsMissing"}
"""Pages whose commands print the same during the fault."""
RULES = ROOT / "k8s" / "observability" / "rules.yaml"
GROWING = {f"busyapi:buffer_left:seconds{{{NAMESPACE_SELECTOR}}}"}
"""Queries with a value only while the backlog grows: tests/observability/test_flusher_faults.py."""
OF_LAKE = "busyapi_lake_"
"""Begins the metrics of a lake, which is not here: tests/observability/test_lake_faults.py."""


@pytest.fixture
def shell(tmp_path: Path, running: tuple[Stack, Server]) -> StackShell:
    stack, server = running
    return StackShell(tmp_path / "bin", stack, server, stack.archive)


def find_problems(page: Page, shell: StackShell) -> list[str]:
    """Run the commands that only read, and return failures and missing lines."""
    messages = []
    for block in page.of("sh"):
        result = shell.run(block.text)
        # grep exits with 1 without a match, which is not a failure.
        messages += result.failures
        if block.section == RECOVERY or page.name in SAME_IN_FAULT:
            messages += [
                f"not in {result.output!r}: {line}" for line in block.missing(result.output)
            ]
    return messages


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_read_only_commands_work_and_show_the_recovery(page: Page, shell: StackShell) -> None:
    assert find_problems(page, shell) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("kubectl exec busyapi-flusher-0 -- busyapi archive prove | tail -n 1", "2: kubectl exec"),
        (
            "kubectl -n $NAMESPACE exec busyapi-valkey-0 -- valkey-cli -e --user probe SING",
            "1: kubectl",
        ),
        ("curl -s localhost:3000/nowhere --fail", "22: curl"),
        (
            "kubectl exec busyapi-flusher-0 -- busyapi archive ls\n```\n```text\npartition 9",
            "not in",
        ),
    ],
)
def test_failed_command_or_other_output_is_reported(
    shell: StackShell, command: str, message: str
) -> None:
    page = parse("Broken", f"## {RECOVERY}\n```sh\n{command}\n```\n")
    (problem,) = find_problems(page, shell)
    assert problem.startswith(message)


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, running: tuple[Stack, Server]
) -> Iterator[Prometheus]:
    stack, _ = running
    rules = yaml.safe_load(RULES.read_text())
    with Prometheus(tmp_path_factory.mktemp("prometheus"), stack, rules) as server:
        api, flusher = "busyapi_usages_total", "busyapi_archived_seq"
        rates = f"count(rate({api}[1m])) and count(rate({flusher}[1m]))"
        wait_until(lambda: server.query(rates), "two scrapes", seconds=20)
        waiting = "busyapi:unarchived_usages:max"
        wait_until(lambda: server.query(waiting), "the rules", seconds=20)
        yield server


QUERIES = sorted({(page.name, q.text) for page in PAGES.values() for q in page.of("promql")})


@pytest.mark.parametrize(("page", "query"), QUERIES)
def test_query_returns_data(page: str, query: str, prometheus: Prometheus) -> None:
    del page
    # The processes have not run for a minute.
    expression = query.replace(" offset 1m", "").replace(" offset 1d", "").replace(" offset 2d", "")
    expression = expression.replace(NAMESPACE_SELECTOR, f'namespace="{NAMESPACE}"')
    foreign = any(name in query for name in FOREIGN_METRICS - {"up"}) or query.startswith("up{")
    if foreign or query in GROWING or OF_LAKE in query:
        prometheus.query(expression)
    else:
        # On a busy machine a scrape can be missed.
        wait_until(lambda: prometheus.query(expression), "data", seconds=20, every=0.2)


def test_query_that_does_not_parse_is_refused(prometheus: Prometheus) -> None:
    with pytest.raises(ValueError, match="parse error"):
        prometheus.query("sum by (reason rate(busyapi_refused_total[5m])")

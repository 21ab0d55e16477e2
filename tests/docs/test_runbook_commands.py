"""The runbooks' commands and queries, on running processes where all is well."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from testkit.docs.runbook_rules import FOREIGN, ROOT
from testkit.docs.runbook_shell import OnStack
from testkit.docs.runbooks import RECOVERY, Page, pages, parse
from testkit.processes import Stack
from testkit.prometheus import Prometheus
from testkit.servers import Server
from testkit.waiting import wait_until

PAGES = {each.name: each for each in pages(index=True)}
WELL = {"BusyapiTargetsMissing"}
"""Pages whose commands print the same in the fault."""
RULES = ROOT / "k8s" / "observability" / "rules.yaml"
GROWING = {"busyapi:buffer_left:seconds"}
"""Given only while the backlog grows: asked for in tests/observability/test_flusher_faults.py."""


@pytest.fixture
def shell(tmp_path: Path, running: tuple[Stack, Server]) -> OnStack:
    stack, server = running
    return OnStack(tmp_path / "bin", stack, server, stack.archive)


def troubles(page: Page, shell: OnStack) -> list[str]:
    """Run what only looks; tell what failed or was not printed."""
    found = []
    for block in page.of("sh"):
        result = shell.run(block.text)
        # grep ends with 1 when there is no such line, and that is well.
        found += result.failures
        if block.section == RECOVERY or page.name in WELL:
            found += [f"not in {result.output!r}: {each}" for each in block.missing(result.output)]
    return found


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_commands_that_look_work_and_show_that_it_is_over(page: Page, shell: OnStack) -> None:
    assert troubles(page, shell) == []


@pytest.mark.parametrize(
    ("command", "trouble"),
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
def test_command_that_fails_or_prints_otherwise_is_told(
    shell: OnStack, command: str, trouble: str
) -> None:
    page = parse("Broken", f"## {RECOVERY}\n```sh\n{command}\n```\n")
    (found,) = troubles(page, shell)
    assert found.startswith(trouble)


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
def test_query_gives_data(page: str, query: str, prometheus: Prometheus) -> None:
    del page
    # Nothing has run for that long here.
    here = query.replace(" offset 1m", "")
    foreign = any(each in query for each in FOREIGN - {"up"}) or query == "up == 0"
    if foreign or query in GROWING:
        prometheus.query(here)
    else:
        # A busy machine misses a scrape.
        wait_until(lambda: prometheus.query(here), "data", seconds=20, every=0.2)


def test_query_that_does_not_parse_is_refused(prometheus: Prometheus) -> None:
    with pytest.raises(ValueError, match="parse error"):
        prometheus.query("sum by (reason rate(busyapi_refused_total[5m])")

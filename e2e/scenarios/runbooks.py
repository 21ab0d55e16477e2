"""Run the runbooks' commands on an installed release: first those that only read.

The irreversible commands are not run here: each names the test that covers it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.kube import wait_for
from e2e.measure import ScenarioFailed
from e2e.release import Release
from e2e.report import Report
from testkit.chart.programs import helm3, kubectl
from testkit.docs.runbook_shell import Shell, on_cluster
from testkit.docs.runbooks import RECOVERY, Block, Page, pages

NO_GROWTH = "must support resize"
"""The error of the API server for a storage class that does not grow volumes."""
SETTLE_SECONDS = 90
"""The metrics of a pod appear some time after the pod."""


def read(site: Release, report: Report) -> None:
    """Run every command that only reads, and check the output after recovery."""
    site.install()
    site.upgrade(site.routing_values())  # for a rollback
    site.wait_routed()
    for _ in range(3):
        site.post_seed()
    site.wait_flushed()
    with report.row("runbooks: commands that only read") as row, shell(site) as bash:
        blocks = [(page, block) for page in pages(index=True) for block in page.of("sh")]
        for page, block in blocks:
            run_until_healthy(bash, page, block)
        row.notes.append(f"{len(blocks)} blocks of {len(pages())} pages")


def change(site: Release, report: Report) -> None:
    """Run every reversible command that changes the release, and check that no usage is lost."""
    with report.row("runbooks: commands that change") as row, shell(site) as bash:
        blocks = [(page, block) for page in pages() for block in page.of("sh", "changes")]
        for page, block in blocks:
            if failures := bash.run(block.text).failures:
                raise ScenarioFailed(f"{page.name}: {failures}")
            site.kube.wait_settled()
        row.notes.append(f"{len(blocks)} blocks")
        row.verdict = site.audit()


def grow(site: Release, report: Report) -> None:
    """Grow the archive's volume, unless the storage class does not allow it."""
    with report.row("runbooks: the archive's volume is grown") as row, shell(site) as bash:
        (command,) = {
            block.text
            for page in pages()
            for block in page.of("sh", "decides")
            if "patch pvc" in block.text
        }
        result = bash.run(command.replace("SIZE", "11Gi"))
        if result.failures and NO_GROWTH not in result.output:
            raise ScenarioFailed(result.output)
        row.notes.append(result.output.strip()[:200])


def run_until_healthy(bash: Shell, page: Page, block: Block) -> None:
    """Run a block until its output is that of the page.

    Raises:
        ScenarioFailed: The output is still different at the end of the wait.
    """
    problem_lines: list[str] = []

    def is_healthy() -> bool:
        problem_lines[:] = find_problems(bash, block)
        return not problem_lines

    try:
        wait_for(is_healthy, "a runbook's command", SETTLE_SECONDS)
    except TimeoutError:
        raise ScenarioFailed(f"{page.name}: {problem_lines}") from None


def find_problems(bash: Shell, block: Block) -> list[str]:
    """Run a block, and return its failed commands and missing lines of output."""
    result = bash.run(block.text)
    missing = block.missing(result.output) if block.section == RECOVERY else []
    return [*result.failures, *(f"not in {result.output!r}: {line}" for line in missing)]


@contextmanager
def shell(site: Release) -> Iterator[Shell]:
    """Provide a shell for the release of this site."""
    with tempfile.TemporaryDirectory() as folder:
        yield on_cluster(Path(folder), kubectl(), helm3(), site.target.kubeconfig, site.namespace)


SCENARIOS = (read, change, grow)

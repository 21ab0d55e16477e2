"""The runbooks' commands on an installed release: those that look, then those that change it.

What a runbook marks as a decision is not done here: the test that the mark names does it.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.kube import wait_for
from e2e.measure import Broken
from e2e.release import Release
from e2e.report import Report
from testkit.chart.programs import helm3, kubectl
from testkit.docs.runbook_shell import Shell, on_cluster
from testkit.docs.runbooks import RECOVERY, Block, Page, pages

NO_GROWTH = "must support resize"
"""What an API server says of a class that does not allow it."""
SETTLE_SECONDS = 90
"""A pod's figures come a while after the pod."""


def look(site: Release, report: Report) -> None:
    """Run every command that only looks; what is printed when all is well must be printed."""
    site.install()
    site.upgrade(site.routes())  # a release that can be rolled back
    site.wait_routed()
    for _ in range(3):
        site.seed()
    site.wait_flushed()
    with report.row("runbooks: commands that look") as row, shell(site) as bash:
        blocks = [(page, block) for page in pages(index=True) for block in page.of("sh")]
        for page, block in blocks:
            tried(bash, page, block)
        row.notes.append(f"{len(blocks)} blocks of {len(pages())} pages")


def change(site: Release, report: Report) -> None:
    """Run every command that changes the release and can be undone; nothing may be lost."""
    with report.row("runbooks: commands that change") as row, shell(site) as bash:
        blocks = [(page, block) for page in pages() for block in page.of("sh", "changes")]
        for page, block in blocks:
            if found := bash.run(block.text).failures:
                raise Broken(f"{page.name}: {found}")
            site.kube.wait_settled()
        row.notes.append(f"{len(blocks)} blocks")
        row.verdict = site.audit()


def grow(site: Release, report: Report) -> None:
    """Type what grows the archive's volume; a class that lets none grow must be what refuses it."""
    with report.row("runbooks: the archive's volume is grown") as row, shell(site) as bash:
        (command,) = {
            block.text
            for page in pages()
            for block in page.of("sh", "decides")
            if "patch pvc" in block.text
        }
        result = bash.run(command.replace("SIZE", "11Gi"))
        if result.failures and NO_GROWTH not in result.output:
            raise Broken(result.output)
        row.notes.append(result.output.strip()[:200])


def tried(bash: Shell, page: Page, block: Block) -> None:
    """Run a block until it does what the page says.

    Raises:
        Broken: it does not, in all that time.
    """
    seen: list[str] = []

    def well() -> bool:
        seen[:] = troubles(bash, block)
        return not seen

    try:
        wait_for(well, "a runbook's command", SETTLE_SECONDS)
    except TimeoutError:
        raise Broken(f"{page.name}: {seen}") from None


def troubles(bash: Shell, block: Block) -> list[str]:
    """Run a block; tell which commands failed, and what was to be printed and was not."""
    result = bash.run(block.text)
    missing = block.missing(result.output) if block.section == RECOVERY else []
    return [*result.failures, *(f"not in {result.output!r}: {each}" for each in missing)]


@contextmanager
def shell(site: Release) -> Iterator[Shell]:
    """A bash for this site's release."""
    with tempfile.TemporaryDirectory() as folder:
        yield on_cluster(Path(folder), kubectl(), helm3(), site.target.kubeconfig, site.namespace)


SCENARIOS = (look, change, grow)

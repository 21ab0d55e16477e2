"""Run the runbooks' commands on a release, first those that only read.

Irreversible commands, and most of those with a word to replace, are not run here. Each names its
test.
"""

from e2e.kube import wait_for
from e2e.measure import ScenarioFailed
from e2e.release import Release
from e2e.report import Report
from e2e.shell import open_shell
from testkit.docs.runbook_shell import Shell
from testkit.docs.runbooks import RECOVERY, Block, Page, pages

NO_GROWTH = "must support resize"
"""The API server's error for a storage class that cannot grow volumes."""
WORDS = {
    "MAX_PODS": "12",
    "MIN_PODS": "3",
    "NEW_MEMORY": "1536Mi",
    "NEW_BOUND": "2000000",
    "KEY_SECONDS": "1800",
    "MONITOR_LABEL": "release",
    "LABEL_VALUE": "prometheus",
    "PROMETHEUS_NAMESPACE": "monitoring",
}
"""Words to replace in commands that change the release -> values for the release under test."""
SETTLE_SECONDS = 90
"""How long a healthy output may take: a pod's metrics appear some time after the pod."""


def run_reading_commands(release: Release, report: Report) -> None:
    """Run every command that only reads, and check the output after recovery."""
    release.install()
    release.upgrade(release.routing_values())  # for a rollback
    release.wait_until_routed()
    for _ in range(3):
        release.post_example()
    release.wait_until_flushed()
    with report.row("runbooks: commands that only read") as row, open_shell(release) as bash:
        blocks = [(page, block) for page in pages(index=True) for block in page.of("sh")]
        for page, block in blocks:
            run_until_healthy(bash, page, block)
        row.notes.append(f"{len(blocks)} blocks of {len(pages())} pages")


def run_changing_commands(release: Release, report: Report) -> None:
    """Run every reversible command that changes the release, and check that no usage is lost.

    A command with a word to replace names the test that runs it. `WORDS` has those of this one.
    """
    own = f"e2e/scenarios/runbooks.py::{run_changing_commands.__name__}"
    with report.row("runbooks: commands that change") as row, open_shell(release) as bash:
        blocks = [
            (page, block)
            for page in pages()
            for block in page.of("sh", "changes")
            if block.marks[1:] in ([], [own])
        ]
        for page, block in blocks:
            if failures := bash.run(replace_words(block.text)).failures:
                raise ScenarioFailed(f"{page.name}: {failures}")
            release.kube.wait_until_settled()
        row.notes.append(f"{len(blocks)} blocks")
        row.verdict = release.audit()


def replace_words(text: str) -> str:
    """Replace the words that on-call would replace."""
    for word, value in WORDS.items():
        text = text.replace(word, value)
    return text


def grow_volume(release: Release, report: Report) -> None:
    """Grow the volumes of archive and Valkey, unless the storage class does not allow it."""
    with (
        report.row("runbooks: the commands that grow volumes") as row,
        open_shell(release) as bash,
    ):
        commands = {
            block.text
            for page in pages()
            for block in page.of("sh", "decides")
            if "patch pvc" in block.text
        }
        assert len(commands) == 2, "the archive and Valkey"
        for command in sorted(commands):
            result = bash.run(command.replace("SIZE", "11Gi"))
            if result.failures and NO_GROWTH not in result.output:
                raise ScenarioFailed(result.output)
            row.notes.append(result.output.strip()[:200])


def run_until_healthy(bash: Shell, page: Page, block: Block) -> None:
    """Run a block until its output is that of the page.

    Raises:
        ScenarioFailed: It is still different after `SETTLE_SECONDS`.
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


SCENARIOS = (run_reading_commands, run_changing_commands, grow_volume)

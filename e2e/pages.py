"""Run the commands of the documentation, exactly as its pages have them.

The first line of a fenced block has its mark, such as `sh back-up`. Blocks with the same mark
belong together.
"""

import time

from e2e.measure import ScenarioFailed
from e2e.target import ROOT
from testkit.docs.runbook_shell import Shell
from testkit.docs.runbooks import Block, parse

PAGES = (ROOT / "docs" / "how-to", ROOT / "docs" / "security")


def run_blocks(bash: Shell, mark: str) -> str:
    """Run the blocks with a mark in order, and return their output.

    Raises:
        ScenarioFailed: A command failed, or there is no such block.
    """
    blocks = find_blocks(mark)
    results = [bash.run(block.text) for block in blocks]
    failed = [failure for result in results for failure in result.failures]
    if failed or not blocks:
        raise ScenarioFailed(
            f"{mark}, {len(blocks)} blocks: {failed} {[e.output for e in results]}"
        )
    return "".join(result.output for result in results)


def find_blocks(mark: str) -> list[Block]:
    """Return the blocks with a mark, which are all on one page."""
    paths = sorted(path for folder in PAGES for path in folder.glob("*.md"))
    pages = (parse(path.stem, path.read_text()) for path in paths)
    return [block for page in pages for block in page.of("sh", mark)]


def run_timed(bash: Shell, mark: str) -> str:
    """Run the blocks with a mark, and return a note with the duration."""
    began = time.monotonic()
    run_blocks(bash, mark)
    return f"{mark}: {time.monotonic() - began:.0f} s"

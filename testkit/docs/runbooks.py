"""Parse runbooks: headings, and the blocks of commands, queries and output.

```sh                    only reads
```sh reads FILE::TEST   only reads, with a word to replace: that test runs it
```sh changes            changes a release, and can be undone
```sh changes FILE::TEST the same, with a word to replace: that test runs it
```sh decides FILE::TEST cannot be undone: that test does the same
```promql                a query
```text                  the output of the command block above; … stands for what differs
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import dedent

RUNBOOKS = Path(__file__).parents[2] / "docs" / "runbooks"
RECOVERY = "Verify recovery"
"""The heading with the output after recovery. Other output is that of the fault."""
_FENCE = re.compile(r"^ *```(.*)$")


@dataclass
class Block:
    """A fenced block."""

    kind: str
    marks: list[str]
    section: str
    text: str
    label: str = ""
    """The line above the block: a reader of the rendered page does not see the marks."""
    expected: list[str] = field(default_factory=list)
    """Lines of its output, in this order, with any lines between them."""

    def missing(self, output: str) -> list[str]:
        """Return the expected lines that an output does not have in their order."""
        lines = iter(output.splitlines())
        return [
            pattern
            for pattern in self.expected
            if not any(_compile(pattern).fullmatch(line) for line in lines)
        ]


@dataclass
class Page:
    """A runbook."""

    name: str
    text: str
    headings: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)

    def of(self, kind: str, mark: str | None = None) -> list[Block]:
        """Return the blocks of a kind with this mark, or without a mark."""
        marks = [] if mark is None else [mark]
        return [block for block in self.blocks if block.kind == kind and block.marks[:1] == marks]


def _compile(line: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in line.split("…")))


def parse(name: str, text: str) -> Page:
    """Parse a page.

    Raises:
        ValueError: A block does not end, or output has no command above it.
    """
    page = Page(name, text)
    info, lines, section, label = None, list[str](), "", ""
    for line in text.splitlines():
        fence = _FENCE.match(line)
        if fence and info is None:
            info, lines = fence[1].split(), []
        elif fence and info is not None:
            _add(page, info, section, label, dedent("\n".join(lines)))
            info, label = None, ""
        elif info is not None:
            lines.append(line)
        elif line.startswith("## "):
            section = line[3:]
            page.headings.append(section)
        if line.strip() and info is None:
            label = line.strip()
    if info is not None:
        raise ValueError(f"{name}: a block does not end")
    return page


def _add(page: Page, info: list[str], section: str, label: str, text: str) -> None:
    kind, *marks = info or [""]
    if kind != "text":
        page.blocks.append(Block(kind, marks, section, text, label))
        return
    above = page.blocks[-1] if page.blocks else None
    if above is None or above.kind != "sh" or above.section != section:
        raise ValueError(f"{page.name}: output without a command above it")
    above.expected = text.splitlines()


def pages(*, index: bool = False) -> list[Page]:
    """Parse every runbook, and the index on request."""
    paths = sorted(RUNBOOKS.glob("*.md"))
    return [parse(path.stem, path.read_text()) for path in paths if index or path.stem != "README"]

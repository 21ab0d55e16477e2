r"""A process that reads pages for a flusher: a request a line on stdin, an answer on stdout.

A process of its own, because a query takes CPU for as long as its page allows, which must delay
neither a flush nor a probe. It ends when its stdin does, so it does not outlive its flusher.

At the start it writes an empty line: until then it has read no request.

    {"first":1,"last":22954,"usages":100,…}\n   ──>   {"through":22954,"seqs":[7,…],"bytes":512,…}\n
                                                      <line>\n<line>\n…
"""

import json
import sys
from pathlib import Path
from typing import Any

from busyapi.archive.identity import read_identity
from busyapi.archive.paths import partition_folder
from busyapi.archive.ranges import SeqRange
from busyapi.archive_cli.line_filter import Query
from busyapi.archive_cli.page import Page, PageLimits, Visibility, read_page
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged, UnknownVersion
from busyapi.ids import Seq

FAILURES = (ArchiveDamaged, UnknownVersion, OSError, ValueError, LookupError, TypeError)


def main(root: str, partition: str) -> None:
    """Answer requests until stdin ends."""
    folder = partition_folder(Path(root), int(partition))
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    for line in sys.stdin.buffer:
        try:
            answer = render_page(_read(folder, json.loads(line)))
        except FAILURES as error:
            # Its message could quote what was asked for. That of damage names the file.
            detail = f": {error}" if isinstance(error, ArchiveDamaged) else ""
            problem = type(error).__name__ + detail
            answer = json.dumps({"error": problem, "bytes": 0}).encode() + b"\n"
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()


def _read(folder: Path, request: dict[str, Any]) -> Page:
    # Read it for each page: retention and new partitions change it.
    identity = read_identity(folder)
    if identity is None:
        raise ArchiveDamaged("partition.json is missing")
    visible = request["visible"]
    return read_page(
        ArchivePartition(folder, identity),
        SeqRange(Seq(request["first"]), Seq(request["last"])),
        Query(
            request["since_ms"],
            request["until_ms"],
            frozenset([request["patient"]]),
            frozenset(request["medications"]),
        ),
        PageLimits(request["usages"], request["bytes"], request["seconds"]),
        Visibility(**visible) if visible else None,
    )


def render_page(page: Page) -> bytes:
    """Return a page as the worker answers it."""
    lines = b"".join(line + b"\n" for _, line in page.lines)
    seqs = [seq for seq, _ in page.lines]
    head = {
        "through": page.through,
        "seqs": seqs,
        "lacks_filter": page.lacks_filter,
        "bytes": len(lines),
    }
    return json.dumps(head).encode() + b"\n" + lines


if __name__ == "__main__":
    main(*sys.argv[1:])

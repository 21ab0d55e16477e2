"""The list of files that a person sees."""

from collections.abc import Iterator
from datetime import UTC, datetime

from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.archive.reader import read_footer
from busyapi.archive_cli.snapshot import ArchivePartition


def render_table(partition: ArchivePartition) -> Iterator[str]:
    """Give one line for the partition and one for each of its files."""
    said = partition.identity
    yield (
        f"partition {said.partition} of {said.partitions}, archive {said.archive_id},"
        f" bound {said.bound}, kept from id {partition.id_of(said.kept_from)}"
    )
    files = partition.list_files().files
    finished = [each for each in files if each.kind is FileKind.SEGMENT]
    for file in files:
        if file.kind is FileKind.OPEN:
            copied = any(each.first <= file.first <= each.last for each in finished)
            what = f"from id {partition.id_of(file.first)}{', copied already' if copied else ''}"
            yield f"  {'open':10}  {what:48}  {file.path}"
        else:
            ids = partition.describe_ids(SeqRange(file.first, file.last))
            times = _describe_times(partition, file)
            yield f"  {file.kind:10}  {ids:48}  {file.seq_count:>10}  {times:41}  {file.path}"


def _describe_times(partition: ArchivePartition, file: ArchiveFile) -> str:
    """Tell when the first and the last usage of a segment were received."""
    if file.kind is not FileKind.SEGMENT:
        return ""
    with partition.open_file(file) as found:
        footer = read_footer(found[0]) if found else None
    if footer is None:
        return "footer damaged: see verify"
    earliest = min(each.earliest_ms for each in footer.blocks)
    latest = max(each.latest_ms for each in footer.blocks)
    return f"{_format_second(earliest)} {_format_second(latest)}"


def _format_second(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""`archive ls`: the list of files."""

from collections.abc import Iterator
from datetime import UTC, datetime

from busyapi.archive.paths import ArchiveFile, FileKind
from busyapi.archive.ranges import SeqRange
from busyapi.archive.reader import read_summary
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.usage_json import format_received_at


def render_table(partition: ArchivePartition) -> Iterator[str]:
    """Yield one line for the partition and one for each of its files."""
    identity = partition.identity
    yield (
        f"partition {identity.partition} of {identity.strides.stride}, archive"
        f" {identity.archive_id}, bound {identity.bound}, oldest id kept {_first_id(partition)}"
    )
    files = partition.list_files().files
    segments = [file for file in files if file.kind is FileKind.SEGMENT]
    for file in files:
        if file.kind is FileKind.OPEN:
            copied = any(segment.first <= file.first <= segment.last for segment in segments)
            ids = f"from id {partition.id_of(file.first)}{', copied already' if copied else ''}"
            yield f"  {'open':10}  {ids:48}  {file.path}"
        else:
            ids = partition.describe_ids(SeqRange(file.first, file.last))
            times = _describe_times(partition, file)
            yield f"  {file.kind:10}  {ids:48}  {file.seq_count:>10}  {times:41}  {file.path}"


def _first_id(partition: ArchivePartition) -> int:
    identity = partition.identity
    return partition.id_of(max(identity.kept_from, identity.strides.start))


def list_files(partition: ArchivePartition) -> Iterator[dict[str, object]]:
    """Yield the facts of each file. An open segment has no last id and no count."""
    for file in partition.list_files().files:
        is_open = file.kind is FileKind.OPEN
        times = _read_times(partition, file) if file.kind is FileKind.SEGMENT else None
        yield {
            "partition": partition.identity.partition,
            "kind": file.kind,
            "file": file.path,
            "firstId": partition.id_of(file.first),
            "lastId": None if is_open else partition.id_of(file.last),
            "ids": None if is_open else file.seq_count,
            "firstReceivedAt": format_received_at(times[0]) if times else None,
            "lastReceivedAt": format_received_at(times[1]) if times else None,
        }


def _describe_times(partition: ArchivePartition, file: ArchiveFile) -> str:
    """Return when the first and the last usage of a segment were received."""
    if file.kind is not FileKind.SEGMENT:
        return ""
    times = _read_times(partition, file)
    if times is None:
        return "no index or footer: see verify"
    return f"{_format_second(times[0])} {_format_second(times[1])}"


def _read_times(partition: ArchivePartition, file: ArchiveFile) -> tuple[int, int] | None:
    """Return the earliest and the latest receivedAt of a segment; None without a valid footer."""
    with partition.open_file(file) as opened:
        summary = read_summary(opened[0], partition.folder, file) if opened else None
    if summary is None:
        return None
    earliest = min(entry.earliest_ms for entry in summary.block_index)
    return earliest, max(entry.latest_ms for entry in summary.block_index)


def _format_second(ms: int) -> str:
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""`archive upgrade` and `archive downgrade`: segments in the newest format, or in that of 0.2.0.

An upgrade may run while a flusher does. Then it leaves the newest segments, because the recovery of
a flusher may set them aside. A downgrade needs the folder for itself.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from busyapi.archive import identity as identities
from busyapi.archive import paths
from busyapi.archive.convert import (
    Conversion,
    complete_index,
    convert_segment,
    delete_copies,
    exclude_other_conversions,
)
from busyapi.archive.format_version import NEWEST_FORMAT
from busyapi.archive.fsync import translate_full_volume
from busyapi.archive.identity import Identity
from busyapi.archive.lock import lock_exclusively
from busyapi.archive.paths import FileKind
from busyapi.archive.recovery import CHECKED_SEGMENTS
from busyapi.archive_cli.accept_loss import recover_for_command
from busyapi.archive_cli.partitions import find_partitions
from busyapi.archive_cli.progress import Progress
from busyapi.archive_cli.selection import add_partition_option, print_error
from busyapi.archive_cli.snapshot import ArchivePartition
from busyapi.errors import ArchiveDamaged, ArchiveError, ArchiveLocked, ArchiveTakenOver
from busyapi.output import write_output

Add = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]

_UPGRADE_EXAMPLES = """\
  busyapi archive upgrade
  busyapi archive upgrade --partition 1
"""
_DOWNGRADE_EXAMPLES = """\
  busyapi archive downgrade && helm rollback busyapi
"""
_DOWNGRADE_ADVICE = (
    "stop its flusher first. Without flock this cannot be checked: copy the partition's folder to"
    " another file system, run this command there, and copy it back"
)
_OLDEST_FORMAT = 1
LOCK_SECONDS = 60.0
"""How long to wait for the flusher's process that makes filters: it makes one at a time."""


class NotUpgraded(ArchiveError):
    """The archive is still of format 1."""


class NotDowngraded(ArchiveError):
    """0.2.0 could not read the archive in any format."""


def add_commands(add: Add) -> None:
    """Add the commands."""
    add_partition_option(add("upgrade", _upgrade, _UPGRADE_EXAMPLES))
    add_partition_option(add("downgrade", _downgrade, _DOWNGRADE_EXAMPLES))


def _upgrade(options: argparse.Namespace) -> int:
    """Rewrite the segments of older formats in the newest one, and complete their indexes.

    An index gets a filter of the patients in its segment, with which `cat --patient` and `export
    --patient` read only the segments that may hold a patient. A flusher makes filters when the API
    lists usages, so run this command if no client does that.

    A flusher may run meanwhile: then its newest segments are left for a later run. They are also
    left on a file system without flock, where a flusher might run. Each segment is copied, compared
    and replaced, so the command may be ended at any time and repeated. It needs free space for one
    segment.
    """
    return _for_each_partition(options, _upgrade_partition)


def _downgrade(options: argparse.Namespace) -> int:
    """Rewrite all segments in format 1, which busyapi 0.2.0 reads. The flusher must be stopped.

    On a file system without flock the command refuses, because it cannot check that.
    The command may be ended at any time and repeated. After it, a flusher of this version needs
    BUSYAPI_ARCHIVE_FORMAT=1, or it begins with format 2 again.
    """
    for status in find_partitions(options.dir, options.only):
        if status.partition:
            _require_known_to_0_2_0(status.partition)
    return _for_each_partition(options, _downgrade_partition)


def _for_each_partition(
    options: argparse.Namespace, convert: Callable[[Path, ArchivePartition], bool]
) -> int:
    is_complete = True
    for status in find_partitions(options.dir, options.only):
        if status.error:
            print_error(status.error)
        partition = status.partition
        is_complete &= partition is not None and convert(options.dir, partition)
    return 0 if is_complete else 1


def _upgrade_partition(root: Path, partition: ArchivePartition) -> bool:
    folder = partition.folder
    if partition.identity.format < NEWEST_FORMAT:
        try:
            # A flusher does this when it starts.
            recover_for_command(
                root,
                partition._replace(identity=partition.identity._replace(format=NEWEST_FORMAT)),
                "",
                lock_exclusively(folder),
            ).close()
        except ArchiveLocked as error:
            raise NotUpgraded(
                f"partition {partition.identity.partition} is written in format"
                f" {partition.identity.format}, and {error}: set"
                f" BUSYAPI_ARCHIVE_FORMAT={NEWEST_FORMAT} and restart its flusher first"
            ) from None
    lock = None
    with suppress(ArchiveLocked):
        lock = lock_exclusively(folder)
    try:
        return _convert_segments(partition, NEWEST_FORMAT, 0 if lock else CHECKED_SEGMENTS)
    finally:
        if lock:
            lock.release()


def _require_known_to_0_2_0(partition: ArchivePartition) -> None:
    if not partition.identity.strides.is_fixed:
        raise NotDowngraded(
            f"partition {partition.identity.partition} has other ids than 0.2.0 would give it,"
            " because the number of partitions has changed: stay with this version"
        )
    if partition.identity.server:
        raise NotDowngraded(
            f"partition {partition.identity.partition} is on another Redis server than partition 0,"
            " and 0.2.0 knows one server only: stay with this version"
        )


def _downgrade_partition(root: Path, partition: ArchivePartition) -> bool:
    try:
        lock = lock_exclusively(partition.folder)
    except ArchiveLocked as error:
        raise ArchiveLocked(f"{error}: {_DOWNGRADE_ADVICE}") from None
    recover_for_command(root, partition, "", lock).close()
    lock = lock_exclusively(partition.folder)
    try:
        current = _read_identity(partition)
        if not _convert_segments(partition, _OLDEST_FORMAT, 0):
            return False
        identities.write_identity(partition.folder, current._replace(format=_OLDEST_FORMAT))
        for path in partition.list_files().index_paths:
            (partition.folder / path).unlink()
    finally:
        lock.release()
    return True


def _read_identity(partition: ArchivePartition) -> Identity:
    current = identities.read_identity(partition.folder)
    if current is None:
        raise ArchiveDamaged(f"{partition.folder / paths.IDENTITY_NAME} does not exist any more")
    return current


def _convert_segments(partition: ArchivePartition, target: int, left: int) -> bool:
    """Convert all segments except the newest; return whether none of the others failed."""
    folder, identity = partition.folder, _read_identity(partition)
    if identity.format < target:
        # Otherwise 0.2.0 would take its segments for damaged ones, and set them aside.
        raise NotUpgraded(f"{folder} is still of format {identity.format}: make room on its volume")
    counts: Counter[Conversion] = Counter()
    failed = 0
    with exclude_other_conversions(folder, LOCK_SECONDS), translate_full_volume(folder):
        delete_copies(folder)
        files = partition.list_files().files
        if target == _OLDEST_FORMAT and any(file.kind is FileKind.OPEN for file in files):
            raise ArchiveLocked(f"a flusher has written to {folder} meanwhile: stop it first")
        segments = [file for file in files if file.kind is FileKind.SEGMENT]
        segments = segments[: len(segments) - left] if left else segments
        total = sum(_size(folder / file.path) for file in segments)
        with Progress("rewriting", total) as progress:
            for file in segments:
                progress.advance(_size(folder / file.path))
                try:
                    done = convert_segment(folder, file, identity, target)
                    if target != _OLDEST_FORMAT:
                        indexed = complete_index(folder, file, identity)
                        done = indexed if done is Conversion.NOTHING else done
                    counts[done] += 1
                except FileNotFoundError:
                    if not (folder / file.path).exists():
                        continue  # retention deleted it
                    progress.clear()
                    print_error(f"{file.path}: a flusher has started meanwhile: it stays as it is")
                    failed += 1
                except (ArchiveDamaged, ArchiveTakenOver) as error:
                    progress.clear()
                    print_error(f"{error}: it stays as it is")
                    failed += 1
    write_output(
        f"partition {identity.partition}: {counts[Conversion.REWRITTEN]} segments rewritten in"
        f" format {target}, {counts[Conversion.INDEXED]} indexes completed,"
        f" {counts[Conversion.NOTHING]} segments unchanged"
        + (f", the newest {left} left, because a flusher may run" if left else "")
        + "\n"
    )
    return not failed


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0

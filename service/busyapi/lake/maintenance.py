"""Expiry of snapshots, and the sweep of files that no snapshot has.

A sweep deletes only files with busyapi's names that are older than any commit that may still be
under way (`MAX_UNCOMMITTED_SECONDS` in `table.py`): files of a process that died, of snapshots that
expired, and of commits that failed. It lists the files first and reads the snapshots after that, so
that it knows every file which was committed before it was listed.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from busyapi.failpoints import failpoint
from busyapi.lake.data_files import FILE_PREFIX
from busyapi.lake.newest import check_newest, list_stored
from busyapi.lake.positions import find_positioned
from busyapi.lake.table import LakeTable

ORPHAN_AGE = timedelta(hours=24)
METADATA_SUFFIXES = (".avro", ".metadata.json")


def expire_snapshots(lake: LakeTable, replaced_before: datetime) -> int:
    """Expire snapshots that were replaced by a newer one before this time; return their number.

    A program that reads a snapshot has that long to finish. The current snapshot never expires, nor
    does the one whose positions count.
    """
    table = lake.load()
    positioned = find_positioned(table)
    kept = {ref.snapshot_id for ref in table.refs().values()}
    kept |= {positioned.snapshot_id} if positioned else set()
    limit = replaced_before.timestamp() * 1000
    in_order = sorted(table.snapshots(), key=lambda snapshot: snapshot.sequence_number or 0)
    expired = [
        snapshot.snapshot_id
        for snapshot, newer in pairwise(in_order)
        if newer.timestamp_ms < limit and snapshot.snapshot_id not in kept
    ]
    try:
        if expired:
            table.maintenance.expire_snapshots().by_ids(expired).commit()
    except (CommitFailedException, ValueError):
        return 0  # another process has committed, or expired the same: the next turn tries again
    return len(expired)


def sweep(lake: LakeTable, older_than: datetime | None = None) -> int:
    """Delete old files that no snapshot has; return their number.

    Raises:
        WrongTable: the catalog is older than the files.
    """
    limit = older_than or datetime.now(UTC) - ORPHAN_AGE
    table = lake.load()
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        return 0
    scheme, host, _ = io.parse_location(table.location(), io.properties)
    system = io.fs_by_scheme(scheme, host)
    stored = list_stored(table, table.location())
    old = [info.path for info in stored if _is_own(info.path) and info.mtime < limit]
    failpoint("lake-sweep-listed")
    table = lake.load()
    check_newest(table, stored)
    used = {io.parse_location(path, io.properties)[2] for path in _list_used(table)}
    orphans = [path for path in old if path not in used]
    for path in orphans:
        with suppress(FileNotFoundError):  # another sweep was faster
            system.delete_file(path)
    return len(orphans)


def _is_own(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name.startswith(FILE_PREFIX) or name.endswith(METADATA_SUFFIXES)


def _list_used(table: Table) -> Iterator[str]:
    """Yield every file that the table's metadata names."""
    yield table.metadata_location
    yield from (entry.metadata_file for entry in table.metadata.metadata_log)
    manifests = set()
    for snapshot in table.snapshots():
        yield snapshot.manifest_list
        for manifest in snapshot.manifests(table.io):
            if manifest.manifest_path not in manifests:
                manifests.add(manifest.manifest_path)
                yield manifest.manifest_path
                for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                    yield entry.data_file.file_path

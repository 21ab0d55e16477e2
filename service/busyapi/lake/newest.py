"""Whether the catalog names the newest metadata of the table.

A catalog that was lost, or restored from a backup, knows an older table than the warehouse holds,
or a new one. Then files are in no snapshot although they may be the last copy of usages that
retention has deleted from the archive: nothing is committed on top, and above all nothing is swept.

    <location>/metadata/00012-<uuid>.metadata.json      each commit writes the next number
"""

import re
from collections.abc import Iterable

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from busyapi.lake.positions import WrongTable

_METADATA_NAME = re.compile(r"(?:.*/)?(\d+)-[^/]*\.metadata\.json")


def list_stored(table: Table, location: str) -> list[fs.FileInfo]:
    """Return the files of the table below a location."""
    if not isinstance(table.io, PyArrowFileIO):
        return []
    scheme, host, root = table.io.parse_location(location, table.io.properties)
    selector = fs.FileSelector(root, recursive=True, allow_not_found=True)
    infos: list[fs.FileInfo] = table.io.fs_by_scheme(scheme, host).get_file_info(selector)
    return [info for info in infos if info.type is fs.FileType.File]


def check_newest(table: Table, stored: Iterable[fs.FileInfo]) -> None:
    """Compare a table with files that were listed before it was loaded.

    Raises:
        WrongTable: a file has metadata that the catalog cannot have lacked when it was written.
    """
    known = _version_of(table.metadata_location)
    versions = [version for info in stored if (version := _version_of(info.path)) is not None]
    # Every commit follows one that the catalog has, so a commit that failed is ahead by one.
    if known is not None and max(versions, default=0) > known + 1:
        raise WrongTable(
            f"the catalog has the table {'.'.join(table.name())} at version {known}, and"
            f" {table.location()} has it at version {max(versions)}: was the catalog lost, or"
            " restored from a backup? Nothing is written or deleted until the newest version is"
            " registered, as docs/how-to/lake.md says"
        )


def _version_of(path: str) -> int | None:
    match = _METADATA_NAME.fullmatch(path)
    return int(match[1]) if match else None

"""Files of the table that are on disk when they are complete.

The catalog is durable by itself: after a power cut it must not name files that the disk has lost.
An object store keeps what it has confirmed, so only local files are synced. They are health data:
as in the archive, only their owner and its group may read them.
"""

import io
import os
from pathlib import Path

from pyiceberg.io import OutputStream
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from busyapi.archive.fsync import make_folder, sync_folder
from busyapi.failpoints import failpoint


class _SyncedStream(io.BufferedWriter):
    def __init__(self, path: Path, flag: int) -> None:
        self._path = path
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | flag, 0o640)
        super().__init__(io.FileIO(fd, "w"))

    def close(self) -> None:
        if not self.closed:
            self.flush()
            os.fsync(self.fileno())
            super().close()
            sync_folder(self._path.parent)
            failpoint("lake-file-closed")


class _SyncedFile(PyArrowFile):
    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: FBT001, FBT002 - as above
        path = Path(self._path)
        make_folder(path.parent)
        return _SyncedStream(path, os.O_TRUNC if overwrite else os.O_EXCL)


class SyncedFileIO(PyArrowFileIO):
    """pyiceberg's access to files, with an fsync of each local file."""

    def new_output(self, location: str) -> PyArrowFile:
        """Return a file to write."""
        file = super().new_output(location)
        scheme, _, path = self.parse_location(location, self.properties)
        if scheme != "file":
            return file
        return _SyncedFile(location, path, self.fs_by_scheme(scheme, ""))

"""Rewrite a .tar.gz so that equal content gives equal bytes."""

import gzip
import io
import tarfile
from pathlib import Path


def normalize(archive: Path, timestamp: int) -> None:
    """Sort the files of a .tar.gz and give all the same time, owner and mode.

    Folders are left out: every program that unpacks creates them.
    """
    with tarfile.open(archive) as packed:
        contents = {
            member.name: (member.mode, file.read())
            for member in packed
            if (file := packed.extractfile(member))
        }
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, (mode, content) in sorted(contents.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            member.mtime = timestamp
            member.mode = 0o755 if mode & 0o100 else 0o644
            tar.addfile(member, io.BytesIO(content))
    archive.write_bytes(gzip.compress(plain.getvalue(), mtime=timestamp))

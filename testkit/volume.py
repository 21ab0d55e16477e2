"""Mount a small file system on a folder, and fill it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


@contextmanager
def mount_small_volume(folder: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of this size on the folder, as root or through sudo.

    Raises:
        PermissionError: neither works.
    """
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},uid={os.geteuid()},gid={os.getegid()}"
    mount = subprocess.run(
        [*_AS_ROOT, "mount", "-t", "tmpfs", "-o", options, "busyapi-test", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    if mount.returncode:
        reason = mount.stderr.strip()
        raise PermissionError(
            f"Cannot mount a small volume: {reason}. Run this test as root or with sudo."
        )
    try:
        yield
    finally:
        subprocess.run([*_AS_ROOT, "umount", "--lazy", str(folder)], check=True, timeout=20)


def fill_volume(folder: Path) -> Path:
    """Fill the volume to its last page, and return the file to delete to free the space."""
    ballast = folder / "ballast"
    with ballast.open("ab", 0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast

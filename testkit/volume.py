"""Mount a small file system on a folder, and fill it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def mount_small_volume(folder: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of this size on the folder.

    Raises:
        PermissionError: this user cannot mount.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "busyapi-test", str(folder)],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    if mount.returncode:
        reason = mount.stderr.strip()
        raise PermissionError(f"Cannot mount a small volume: {reason}. Run this test as root.")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, timeout=20)


def fill_volume(folder: Path) -> Path:
    """Fill the volume to its last page, and return the file to delete to free the space."""
    ballast = folder / "ballast"
    with ballast.open("ab", 0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast

"""An archive that was restored from a backup is recognized as a copy."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from busyapi.archive import file_birth, identity
from testkit.archive.builder import (
    abandon_writer,
    change_identity,
    make_batch,
    recover_writer,
    write_as_0_2_0,
)


def read_home(root: Path) -> Any:
    return json.loads((root / "p00/partition.json").read_text()).get("home")


def copy_with(*words: str) -> Callable[[Path, Path], object]:
    """Return a function that copies with a command."""
    return lambda old, new: subprocess.run([*words, str(old), str(new)], check=True)


def copy_with_tar(old: Path, new: Path) -> None:
    new.mkdir()
    script = 'tar -C "$1" -cf - . | tar -C "$2" -xpf -'
    subprocess.run(["sh", "-c", script, "sh", str(old), str(new)], check=True)


def restore_in_place(old: Path, new: Path) -> None:
    """Restore into the same files: names and inode numbers are those of the original."""
    backup = old.with_name("backup")
    shutil.copytree(old, backup)
    recover_writer(old, bound=5000).close()
    shutil.copyfile(backup / "p00/partition.json", old / "p00/partition.json")
    old.rename(new)


COPIES: dict[str, Callable[[Path, Path], object]] = {
    "copytree": shutil.copytree,
    "copytree without lock": lambda old, new: shutil.copytree(
        old, new, ignore=shutil.ignore_patterns(".lock")
    ),
    "cp -a": copy_with("cp", "-a"),
    "tar": copy_with_tar,
    "into the same files": restore_in_place,
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_counts_as_a_copy_until_it_is_adopted(tmp_path: Path, how: str) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    writer = recover_writer(old)
    writer.append([make_batch(1, 3)])
    assert not writer.identity.is_copy
    writer.close()
    COPIES[how](old, new)
    for _ in range(2):
        # A larger bound and a mark rewrite the file: it must still count as a copy.
        copy = recover_writer(new, bound=9000)
        assert copy.identity.is_copy
        copy.update_identity(is_seeded=True)
        assert copy.identity.is_copy
        copy.close()
    copy = recover_writer(new)
    copy.adopt_copy()
    assert not copy.identity.is_copy
    copy.append([make_batch(4)])
    copy.close()
    copy = recover_writer(new)
    assert not copy.identity.is_copy
    copy.close()
    if how != "into the same files":
        original = recover_writer(old)
        assert not original.identity.is_copy
        original.close()


def test_an_original_stays_an_original_when_its_path_or_metadata_changes(tmp_path: Path) -> None:
    root = tmp_path / "archive"
    recover_writer(root).close()
    path = root / "p00" / "partition.json"
    path.chmod(0o600)
    os.chown(path, os.getuid(), os.getgid())  # as kubelet does with fsGroup
    os.utime(path, (0, 0))
    (root / "p00" / ".lock").unlink()
    root.rename(tmp_path / "moved")
    writer = recover_writer(tmp_path / "moved", bound=5000)
    assert not writer.identity.is_copy
    abandon_writer(writer)


@pytest.mark.parametrize("home_of_0_2_0", [None, ""])
def test_an_archive_of_0_2_0_is_adopted(tmp_path: Path, home_of_0_2_0: str | None) -> None:
    """0.2.0 writes no home, and drops an existing one if it writes the file after a rollback."""
    recover_writer(tmp_path).close()
    path = tmp_path / "p00" / "partition.json"
    write_as_0_2_0(path)
    if home_of_0_2_0 is not None:
        change_identity(path, home=home_of_0_2_0)
    writer = recover_writer(tmp_path)
    assert not writer.identity.is_copy
    writer.close()
    assert read_home(tmp_path)
    shutil.copytree(tmp_path / "p00", tmp_path / "copy" / "p00")
    copy = recover_writer(tmp_path / "copy")
    assert copy.identity.is_copy
    copy.close()


def test_without_birth_times_the_inode_number_is_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(file_birth, "_birth_ns", lambda _: 0)
        recover_writer(tmp_path / "old").close()
        assert read_home(tmp_path / "old").startswith("inode:")
        shutil.copytree(tmp_path / "old", tmp_path / "new")
        for name, restored in (("old", False), ("new", True)):
            writer = recover_writer(tmp_path / name)
            assert writer.identity.is_copy is restored
            writer.close()
    # A kernel that supports birth times mounts the same volume.
    writer = recover_writer(tmp_path / "old")
    assert not writer.identity.is_copy
    writer.close()


def test_reading_an_archive_does_not_make_it_an_original(tmp_path: Path) -> None:
    recover_writer(tmp_path / "old").close()
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    before = (tmp_path / "new/p00/partition.json").read_bytes()
    stored = identity.read_identity(tmp_path / "new/p00")
    assert stored
    assert stored.is_copy
    assert (tmp_path / "new/p00/partition.json").read_bytes() == before

"""Exclusive and private use of a state folder."""

import os
from pathlib import Path

import pytest

from busyapi.dev import folder
from busyapi.dev.folder import StateInUse, lock_state_folder


def test_a_second_run_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path, print), pytest.raises(StateInUse, match=str(os.getpid())):
        lock_state_folder(tmp_path, print).__enter__()
    with lock_state_folder(tmp_path, print):
        pass


def test_children_left_over_are_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "ORPHAN_SECONDS", 0.2)
    with lock_state_folder(tmp_path, print) as state_folder:
        state_folder.record("valkey", 123)
        # A child inherits such a copy. The lock is held until the last copy is closed.
        orphan = os.dup(state_folder.children_lock)
    messages: list[str] = []
    with pytest.raises(StateInUse, match="do not end: valkey 123"):
        lock_state_folder(tmp_path, messages.append).__enter__()
    assert messages == ["waiting for processes of an earlier run to end: valkey 123"]
    os.close(orphan)
    with lock_state_folder(tmp_path, print) as state_folder:
        assert os.pread(state_folder.children_lock, 100, 0) == b""


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path / "state", print):
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_folders_within_a_readable_folder_are_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with lock_state_folder(tmp_path, print) as state_folder:
        for path in (state_folder.archive, state_folder.valkey, state_folder.logs):
            assert path.stat().st_mode & 0o077 == 0


def test_the_log_of_the_previous_run_is_kept(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path, print) as state_folder:
        state_folder.rotate_log("api-0").write_text("first")
        assert not state_folder.rotate_log("api-0").exists()
        assert (state_folder.logs / "api-0.log.1").read_text() == "first"

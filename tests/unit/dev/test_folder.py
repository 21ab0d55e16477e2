"""Who may use a state folder."""

import os
from pathlib import Path

import pytest

from busyapi.dev import folder
from busyapi.dev.folder import StateInUse, lock_state_folder


def test_two_cannot_have_it_and_the_second_is_told_who_has(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path, print), pytest.raises(StateInUse, match=str(os.getpid())):
        lock_state_folder(tmp_path, print).__enter__()
    with lock_state_folder(tmp_path, print):
        pass


def test_children_left_over_are_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "ORPHAN_SECONDS", 0.2)
    with lock_state_folder(tmp_path, print) as taken:
        taken.record("valkey", 123)
        # What a child inherits is the same: the lock is held until the last copy is closed.
        orphan = os.dup(taken.children_lock)
    said: list[str] = []
    with pytest.raises(StateInUse, match="do not end: valkey 123"):
        lock_state_folder(tmp_path, said.append).__enter__()
    assert said == ["waiting for processes of an earlier run to end: valkey 123"]
    os.close(orphan)
    with lock_state_folder(tmp_path, print) as taken:
        assert os.pread(taken.children_lock, 100, 0) == b""


def test_only_its_owner_may_look_into_it(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path / "state", print):
        assert (tmp_path / "state").stat().st_mode & 0o077 == 0


def test_what_is_made_in_a_folder_that_others_may_read_is_its_owners_alone(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with lock_state_folder(tmp_path, print) as taken:
        for each in (taken.archive, taken.valkey, taken.logs):
            assert each.stat().st_mode & 0o077 == 0


def test_the_log_of_the_run_before_is_kept_beside_the_new_one(tmp_path: Path) -> None:
    with lock_state_folder(tmp_path, print) as taken:
        taken.rotate_log("api-0").write_text("first")
        assert not taken.rotate_log("api-0").exists()
        assert (taken.logs / "api-0.log.1").read_text() == "first"

"""The watched file: what is noticed, and what a bad file does."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from busyapi.auth import reload as module
from busyapi.auth.authenticator import Authenticator
from busyapi.auth.reload import KEEP_SECONDS, TokenFileWatcher
from busyapi.errors import ConfigError, InvalidCredential

ONE, TWO = ("write one\n", "write two\n")


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(ONE)
    return path


def test_a_change_is_noticed_by_content_not_by_time(path: Path) -> None:
    watcher = TokenFileWatcher(str(path))
    watcher.load()
    assert watcher.reload() is None
    times = path.stat()
    path.write_text(TWO)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert watcher.reload() is not None
    assert watcher.reload() is None


def test_the_links_of_a_kubernetes_volume_are_followed(tmp_path: Path) -> None:
    """The kubelet writes a new folder, then renames a link to it over the old link."""
    for name, text in (("first", ONE), ("second", TWO)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tokens").write_text(text)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    watcher = TokenFileWatcher(str(tmp_path / "tokens"))
    watcher.load()
    assert watcher.reload() is None
    (tmp_path / "..data_tmp").symlink_to("second")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert watcher.reload() is not None


def test_a_bad_file_changes_nothing_and_is_logged_once_and_counted_each_time(path: Path) -> None:
    failures: list[None] = []
    watcher = TokenFileWatcher(str(path))
    watcher.on_failure = lambda: failures.append(None)
    watcher.load()
    with capture_logs() as logs:
        for bad in ("write\n", "write\n", None, None, "[other]\n"):
            path.unlink(missing_ok=True)
            if bad is not None:
                path.write_text(bad)
            assert watcher.reload() is None
    assert len(failures) == 5
    assert [entry["event"] for entry in logs] == ["credentials_not_reloaded"] * 3
    path.write_text(ONE)
    assert watcher.reload() is None, "it is the file that was loaded"
    path.write_text(TWO)
    assert watcher.reload() is not None


def test_at_the_start_a_bad_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        TokenFileWatcher(str(tmp_path / "none")).load()


def test_the_old_format_is_accepted_with_a_warning(path: Path) -> None:
    with capture_logs() as logs:
        TokenFileWatcher(str(path)).load()
    assert [entry["event"] for entry in logs] == ["token_file_format_old"]


@pytest.mark.parametrize("text", ["", "\n", "# write one\n", "[tokens]\n"])
def test_a_file_without_entries_revokes_all(path: Path, text: str) -> None:
    watcher = TokenFileWatcher(str(path))
    watcher.load()
    path.write_text(text)
    file = watcher.reload()
    assert file is not None
    assert not file.tokens
    assert not file.has_old_format
    assert watcher.reload() is None
    path.write_text(ONE)
    file = watcher.reload()
    assert file is not None
    assert file.tokens


def test_a_folder_without_files_revokes_all(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(ONE)
    watcher = TokenFileWatcher(str(tmp_path))
    watcher.load()
    (tmp_path / "a.toml").rename(tmp_path / "a.bak")
    file = watcher.reload()
    assert file is not None
    assert not file.tokens
    (tmp_path / "a.bak").rename(tmp_path / "a.toml")
    file = watcher.reload()
    assert file is not None
    assert file.tokens


def test_a_deleted_file_revokes_all_after_a_while(path: Path, clock: Clock) -> None:
    watcher = TokenFileWatcher(str(path))
    watcher.load()
    clock.now += 7 * KEEP_SECONDS
    assert watcher.reload() is None
    path.unlink()
    clock.now += KEEP_SECONDS
    assert watcher.reload() is None
    path.write_text(ONE)
    assert watcher.reload() is None, "it was gone for a moment"
    path.unlink()
    clock.now += KEEP_SECONDS
    assert watcher.reload() is None
    clock.now += 1
    file = watcher.reload()
    assert file is not None
    assert not file.tokens
    assert watcher.reload() is None, "once"
    path.write_text(ONE)
    file = watcher.reload()
    assert file is not None
    assert file.tokens


def test_an_invalid_file_keeps_the_credentials(path: Path, clock: Clock) -> None:
    watcher = TokenFileWatcher(str(path))
    watcher.load()
    path.write_text("write\n")
    clock.now += 2 * KEEP_SECONDS
    assert watcher.reload() is None
    path.unlink()
    assert watcher.reload() is None, "it was there until now"


async def test_a_revocation_of_all_is_logged_as_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKEN_FILE_CHECK_SECONDS", 0.01)
    watcher = TokenFileWatcher(str(path))
    authenticator = Authenticator(watcher.load())
    assert await authenticator.authenticate(b"Bearer one")
    path.write_text("")
    with capture_logs() as logs, suppress(TimeoutError):
        await asyncio.wait_for(watcher.run(authenticator), 1)
    assert [entry["event"] for entry in logs] == ["credentials_reloaded", "credentials_all_revoked"]
    with pytest.raises(InvalidCredential):
        await authenticator.authenticate(b"Bearer one")

"""The watched file: what is noticed, and what a bad file does."""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from busyapi.auth.reload import TokenFileWatcher
from busyapi.errors import ConfigError

ONE, TWO = ("write one\n", "write two\n")


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
        for bad in ("write\n", "write\n", None, None, ""):
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

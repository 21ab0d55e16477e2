"""A folder of credentials: which files count, and what two of them must not have."""

from hashlib import sha256
from pathlib import Path

import pytest

from busyapi.auth.reload import TokenFileWatcher
from busyapi.auth.token_file import UnreadableCredentials
from busyapi.auth.token_folder import parse_token_files, read_token_files
from busyapi.errors import ConfigError


def make_token(name: str, token: str = "") -> bytes:
    digest = sha256((token or name).encode()).hexdigest()
    return f'[tokens.{name}]\nsha256 = "{digest}"\nscopes = ["write"]\n'.encode()


def make_certificate(name: str) -> bytes:
    return f'[certificates.{name}]\nuri = "spiffe://device"\nscopes = ["write"]\n'.encode()


def load_names(path: Path) -> set[str]:
    file = parse_token_files(read_token_files(str(path)))
    return {entry.name for entry in (*file.tokens.values(), *file.certificates.values())}


def test_every_toml_file_counts_and_no_other(tmp_path: Path) -> None:
    for name in ("a.toml", "b.toml", "c.toml.bak", "d"):
        (tmp_path / name).write_bytes(make_token(name[0]))
    (tmp_path / "certificates.toml").write_bytes(make_certificate("e"))
    (tmp_path / "old.toml").write_text("write f\n")
    assert load_names(tmp_path) == {"a", "b", "e", "line-1"}
    assert parse_token_files(read_token_files(str(tmp_path))).has_old_format


def test_a_single_file_may_have_any_name(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(make_token("a"))
    assert load_names(tmp_path / "tokens") == {"a"}


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (make_token("a"), make_token("a", "another")),
        (make_token("a", "same"), make_token("b", "same")),
        (make_certificate("a"), make_certificate("b")),
        (b"write same\n", make_token("a", "same")),
        (b"[tenants.a]\nrate = 1\n", b"[tenants.a]\nrate = 2\n"),
    ],
)
def test_two_files_with_the_same_name_or_credential_are_refused(one: bytes, two: bytes) -> None:
    with pytest.raises(ConfigError, match=r"two\.toml has a name or a credential"):
        parse_token_files({"one.toml": one, "two.toml": two})


def test_tenants_of_all_files_have_their_rates() -> None:
    file = parse_token_files(
        {"a.toml": b"[tenants.a]\nrate = 1\n", "b.toml": b"[tenants.b]\nrate = 2\n"}
    )
    assert file.tenants == {"a": 1, "b": 2}


def test_an_error_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "good.toml").write_bytes(make_token("a"))
    (tmp_path / "bad.toml").write_text("[tokens.a]\n")
    with pytest.raises(ConfigError, match=r"\(in bad\.toml\)$"):
        load_names(tmp_path)


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder with 0 files"):
        load_names(tmp_path)


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableCredentials):
        read_token_files(str(tmp_path / ("x" * 300)))  # as EACCES, not one of "it is not there"
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(UnreadableCredentials):
        read_token_files(str(tmp_path))


def test_a_file_that_is_added_or_removed_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(make_token("a"))
    watcher = TokenFileWatcher(str(tmp_path))
    watcher.load()
    assert watcher.reload() is None
    (tmp_path / "b.toml").write_bytes(make_token("b"))
    file = watcher.reload()
    assert file is not None
    assert len(file.tokens) == 2
    (tmp_path / "a.toml").unlink()
    file = watcher.reload()
    assert file is not None
    assert [entry.name for entry in file.tokens.values()] == ["b"]

"""Files and their list are signed; a change in any of them is refused."""

import base64
import subprocess
from pathlib import Path

import pytest

from tests.release.conftest import Keys
from tools.release.checksums import verify_folder, write_checksums
from tools.release.commands import run
from tools.release.errors import ReleaseError
from tools.release.signing import load_private_key, load_public_key


@pytest.fixture
def folder(tmp_path: Path, keys: Keys) -> Path:
    """Return a signed folder with two files."""
    folder = tmp_path / "dist"
    folder.mkdir()
    (folder / "busyapi-9.9.0.tgz").write_bytes(b"chart")
    (folder / "busyapi-9.9.0.tar.gz").write_bytes(b"sdist")
    write_checksums(folder, keys.private)
    return folder


def test_a_signed_folder_is_accepted(folder: Path, keys: Keys) -> None:
    verify_folder(folder, keys.public)


def test_openssl_and_sha256sum_verify_it(folder: Path, keys: Keys) -> None:
    signature = folder.parent / "signature"
    signature.write_bytes(base64.b64decode((folder / "SHA256SUMS.sig").read_text()))
    verify = ("openssl", "dgst", "-sha256", "-verify", keys.public_file, "-signature", signature)
    assert run(*verify, folder / "SHA256SUMS") == "Verified OK"
    assert run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=folder).count(": OK") == 2
    (folder / "SHA256SUMS").write_bytes((folder / "SHA256SUMS").read_bytes() + b"\n")
    refused = subprocess.run([*verify, folder / "SHA256SUMS"], check=False, capture_output=True)
    assert refused.returncode == 1


def change_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("busyapi-9.9.0.tgz", r"busyapi-9\.9\.0\.tgz is not the file that was signed"),
        ("SHA256SUMS", "The signature of SHA256SUMS does not match"),
        ("SHA256SUMS.sig", "The signature of SHA256SUMS does not match"),
    ],
)
def test_a_changed_byte_is_refused(folder: Path, keys: Keys, name: str, problem: str) -> None:
    change_byte(folder / name)
    with pytest.raises(ReleaseError, match=problem):
        verify_folder(folder, keys.public)


def test_a_list_with_the_digest_of_the_changed_file_is_refused(
    folder: Path, keys: Keys, other_keys: Keys
) -> None:
    """An attacker can change the files but does not have the key."""
    change_byte(folder / "busyapi-9.9.0.tgz")
    write_checksums(folder, other_keys.private)
    with pytest.raises(ReleaseError, match="The signature of SHA256SUMS does not match"):
        verify_folder(folder, keys.public)


def test_a_missing_or_additional_file_is_refused(folder: Path, keys: Keys) -> None:
    (folder / "another").write_text("added")
    with pytest.raises(ReleaseError, match="another is not the file that was signed"):
        verify_folder(folder, keys.public)
    (folder / "another").unlink()
    (folder / "busyapi-9.9.0.tgz").unlink()
    with pytest.raises(ReleaseError, match=r"busyapi-9\.9\.0\.tgz is missing"):
        verify_folder(folder, keys.public)


def test_a_private_key_may_be_given_as_text_and_with_a_password(keys: Keys, tmp_path: Path) -> None:
    assert load_private_key(keys.private_file.read_text(), None).curve.name == "secp256r1"
    locked = tmp_path / "locked.key"
    run(
        "openssl", "pkcs8", "-topk8", "-in", keys.private_file, "-out", locked, "-passout", "pass:x"
    )
    assert load_private_key(str(locked), "x").key_size == 256
    with pytest.raises(ReleaseError, match="RELEASE_KEY cannot be read"):
        load_private_key(str(locked), None)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    run("openssl", "genpkey", "-algorithm", "ED25519", "-out", tmp_path / "key")
    run("openssl", "pkey", "-in", tmp_path / "key", "-pubout", "-out", tmp_path / "pub")
    with pytest.raises(ReleaseError, match="RELEASE_KEY is not an ECDSA key"):
        load_private_key(str(tmp_path / "key"), None)
    with pytest.raises(ReleaseError, match="pub is not an ECDSA key"):
        load_public_key(tmp_path / "pub")

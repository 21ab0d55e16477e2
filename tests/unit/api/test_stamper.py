"""The stamps of credentials: the same for a renewed credential, another with another salt."""

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import replace
from pathlib import Path

import pytest

from busyapi.api.stamper import Stamper, make_stamper
from busyapi.auth.credential import Credential
from busyapi.errors import ConfigError
from busyapi.stamp import Stamp, split_stamp

SALT = b"0123456789abcdef0123456789abcdef"
DEVICE = Credential("id-of-a-device", "device", frozenset({"write", "read:own"}), "clinic-7")


def read_stamp(stamper: Stamper, credential: Credential) -> Stamp:
    stamp = split_stamp(b"{}" + stamper.encode(credential)).stamp
    assert stamp
    return stamp


def test_stamp_is_what_the_format_says() -> None:
    digest = hmac.new(SALT, b"id-of-a-device", hashlib.sha256).digest()
    stamp = read_stamp(Stamper(SALT), DEVICE)
    assert stamp == (urlsafe_b64encode(digest[:12]).decode(), "clinic-7")


def test_writer_is_recognized_by_its_id_alone() -> None:
    stamper = Stamper(SALT)
    stamp = read_stamp(stamper, DEVICE)
    renewed = replace(DEVICE, name="other", scopes=frozenset(), tenant="", expires_at=1.0)
    assert stamper.is_writer(renewed, stamp)
    assert not stamper.is_writer(replace(DEVICE, id="another"), stamp)
    assert not Stamper(SALT[::-1]).is_writer(DEVICE, stamp)


def test_stamp_follows_a_changed_tenant() -> None:
    stamper = Stamper(SALT)
    assert read_stamp(stamper, DEVICE).tenant == "clinic-7"
    moved = read_stamp(stamper, replace(DEVICE, tenant="clinic-8"))
    assert (moved.tenant, moved.writer) == ("clinic-8", read_stamp(stamper, DEVICE).writer)


def test_salt_file_is_the_same_with_and_without_a_line_end(tmp_path: Path) -> None:
    path = tmp_path / "salt"
    stamps = set()
    for content in (SALT, SALT + b"\n", b" " + SALT + b"\r\n"):
        path.write_bytes(content)
        stamper = make_stamper(str(path))
        assert stamper
        stamps.add(stamper.encode(DEVICE))
    assert len(stamps) == 1


def test_without_a_salt_file_there_are_no_stamps() -> None:
    assert make_stamper("") is None


@pytest.mark.parametrize("content", [None, b"", b"\n" * 64, SALT[:-1]])
def test_missing_or_short_salt_is_refused_and_not_shown(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "salt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="BUSYAPI_WRITER_SALT_FILE") as error:
        make_stamper(str(path))
    assert SALT[:-1].decode() not in str(error.value)

"""Redis URLs: their meaning, and the errors about wrong ones."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from redis.crc import key_slot

from busyapi.errors import ConfigError, RedisUnavailable
from busyapi.stream.credentials import Credentials, Login, TlsFiles
from busyapi.stream.endpoint import Endpoint
from busyapi.stream.keys import PartitionKeys
from busyapi.stream.redis_url import parse_redis_url
from testkit.certificates import make_certificates


def make_login(username: str, password: str) -> Credentials:
    return Credentials(username=username, password=password)


@pytest.mark.parametrize(
    ("url", "members"),
    [
        ("redis://one", {"mode": "standalone", "hosts": (("one", 6379),)}),
        ("redis://one:7000/", {"hosts": (("one", 7000),)}),
        ("redis://one:7000/0", {"hosts": (("one", 7000),)}),
        ("redis://[::1]:7000", {"hosts": (("::1", 7000),)}),
        ("rediss://one:7000", {"mode": "standalone", "tls": True}),
        ("redis://user:pa%40ss%2F@one", {"login": make_login("user", "pa@ss/")}),
        ("redis://:secret@one", {"login": make_login("", "secret")}),
        (
            "redis://user:a@b@one",
            {"login": make_login("user", "a@b"), "hosts": (("one", 6379),)},
        ),
        (
            "redis+sentinel://one,two:7000/main",
            {"mode": "sentinel", "service": "main", "hosts": (("one", 26379), ("two", 7000))},
        ),
        (
            "rediss+sentinel://:pw@one/main",
            {"mode": "sentinel", "tls": True, "login": make_login("", "pw")},
        ),
        (
            "redis+cluster://one:7000,two:7001,[::1]:7002",
            {"mode": "cluster", "hosts": (("one", 7000), ("two", 7001), ("::1", 7002))},
        ),
        ("rediss+cluster://one", {"mode": "cluster", "tls": True, "hosts": (("one", 6379),)}),
    ],
)
def test_url_is_parsed(url: str, members: dict[str, Any]) -> None:
    endpoint = parse_redis_url(url)
    assert {name: getattr(endpoint, name) for name in members} == members
    assert endpoint.tls is url.startswith("rediss")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must look like redis://host:6379"),
        ("one:6379", "must look like"),
        ("redis://", "must look like"),
        ("http://one", "must look like"),
        ("rediss+rediss://one", "must look like"),
        ("unix:///run/redis.sock", "must look like"),
        ("redis://one:port", "has an invalid host or port"),
        ("redis://one:70000", "has an invalid host or port"),
        ("redis://:6379", "has an invalid host or port"),
        ("redis+cluster://one,,two", "has an invalid host or port"),
        ("redis+cluster://one,", "has an invalid host or port"),
        ("redis://one,two", "one host only"),
        ("redis://one/1", "only database 0"),
        ("redis+cluster://one/3", "only database 0"),
        ("redis+sentinel://one", "must end in /<name of the service>"),
    ],
)
def test_error_about_a_wrong_url_does_not_quote_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_redis_url(url)
    secret = url.replace("://", "://user:hush@", 1)
    with pytest.raises(ConfigError) as caught:
        parse_redis_url(secret)
    assert "hush" not in str(caught.value)


def test_separate_settings_override_the_url() -> None:
    endpoint = parse_redis_url("redis://user:old@one", username="other", password="new")
    assert endpoint.login == make_login("other", "new")


def test_password_file_is_read_again_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    endpoint = parse_redis_url("redis://one", password_file=str(file))
    with pytest.raises(RedisUnavailable, match="BUSYAPI_REDIS_PASSWORD_FILE: No such file"):
        endpoint.login.read_login()
    for text in ("first\n", "second"):
        file.write_text(text)
        assert endpoint.login.read_login() == Login("", text.strip())


@pytest.mark.parametrize(
    ("url", "files", "message"),
    [
        ("rediss://one", {"cert_file": "c"}, "or neither"),
        ("rediss://one", {"key_file": "k"}, "or neither"),
        ("redis://one", {"cert_file": "c", "key_file": "k"}, "begin BUSYAPI_REDIS_URL with rediss"),
    ],
)
def test_a_client_certificate_needs_its_key_and_tls(
    url: str, files: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_redis_url(url, tls_files=TlsFiles(**files))


def test_a_key_with_a_password_is_refused_without_asking_for_it(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    key = serialization.load_pem_private_key(certificates.key.read_bytes(), None)
    certificates.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    files = TlsFiles(cert_file=str(certificates.certificate), key_file=str(certificates.key))
    with pytest.raises(RedisUnavailable, match="the key has a password"):
        files.make_context()


def test_keys_of_a_partition_share_a_slot_and_those_of_four_do_not() -> None:
    slots = []
    for keys in map(PartitionKeys, range(4)):
        names = [
            keys.state,
            keys.seq,
            keys.stream,
            keys.lease,
            keys.committer("a"),
            keys.legacy_idempotency_key("b"),
        ]
        assert len(set(names)) == len(names)
        (slot,) = {key_slot(name.encode()) for name in names}
        slots.append(slot)
    assert len(set(slots)) == 4


def test_endpoint_does_not_show_its_password() -> None:
    assert "hush" not in repr(parse_redis_url("redis://user:hush@one"))
    assert isinstance(parse_redis_url("redis://one"), Endpoint)


def test_every_key_of_a_partition_begins_with_the_prefix() -> None:
    keys = parse_redis_url("redis://one", prefix="busyapi:second").key_names(3)
    for name in (
        keys.state,
        keys.seq,
        keys.stream,
        keys.lease,
        keys.committer("l"),
        keys.legacy_idempotency_key("k"),
    ):
        assert name.startswith("busyapi:second:{3}:")
    assert parse_redis_url("redis://one").key_names(3).state == "busyapi:{3}:state"  # as in 0.2.0


@pytest.mark.parametrize("prefix", ["", "{1}", "a b", "a*", "ü", ":a", "a" * 129, "a\n"])
def test_a_prefix_that_keys_or_acls_cannot_have_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"^BUSYAPI_KEY_PREFIX must be "):
        parse_redis_url("redis://one", prefix=prefix)

"""The file of credentials: its syntax, its old format, and the errors about it."""

import json
from contextlib import suppress
from datetime import UTC, date, datetime
from hashlib import sha256
from math import inf
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from busyapi.auth.token_file import MAX_FILE_BYTES, parse_token_file, read_token_file
from busyapi.errors import ConfigError

ONE, TWO = (sha256(token.encode()).hexdigest() for token in ("one", "two"))
TOML = f"""
[tokens.plain]
sha256 = "{ONE}"
scopes = ["write", "read:own"]

[tokens."a.b"]
sha256 = ["{TWO}", "{"0" * 64}"]
scopes = ["read"]
expires = 2027-01-02T03:04:05+01:00
tenant = "north"
rate = 2.5
patient_id = "100"

[tokens.dated]
sha256 = "{"1" * 64}"
scopes = ["erase"]
expires = 2027-01-02

[certificates.mesh]
uri = "spiffe://cluster.local/ns/clinic/sa/gateway"
scopes = ["write"]

[certificates.device]
subject = "CN=device-7,O=Clinic"
scopes = ["write"]

[tenants.north]
rate = 1000

[tenants."Clinic of Łódź"]
rate = 0.5
"""


def test_a_table_is_a_credential() -> None:
    file = parse_token_file(TOML.encode())
    assert not file.has_old_format
    plain = file.tokens[bytes.fromhex(ONE)]
    assert (plain.name, plain.scopes) == ("plain", frozenset({"write", "read:own"}))
    assert (plain.tenant, plain.patient_id, plain.rate, plain.expires_at) == ("", None, 0, inf)
    full = file.tokens[bytes.fromhex(TWO)]
    assert file.tokens[b"\0" * 32] is full
    assert (full.name, full.tenant, full.patient_id, full.rate) == ("a.b", "north", "100", 2.5)
    assert full.expires_at == datetime(2027, 1, 2, 2, 4, 5, tzinfo=UTC).timestamp()
    dated = file.tokens[b"\x11" * 32]
    assert dated.expires_at == datetime(2027, 1, 2, tzinfo=UTC).timestamp()
    assert {key: entry.name for key, entry in file.certificates.items()} == {
        ("uri", "spiffe://cluster.local/ns/clinic/sa/gateway"): "mesh",
        ("subject", "CN=device-7,O=Clinic"): "device",
    }
    assert file.tenants == {"north": 1000, "Clinic of Łódź": 0.5}
    ids = {entry.id for entry in (*file.tokens.values(), *file.certificates.values())}
    assert len(ids) == 5


def test_the_id_stays_while_the_token_is_replaced() -> None:
    text = '[tokens.a]\nsha256 = "{}"\nscopes = ["write"]\n'
    ids = {
        entry.id
        for digest in (ONE, TWO)
        for entry in parse_token_file(text.format(digest).encode()).tokens.values()
    }
    assert len(ids) == 1


def test_a_file_may_say_that_there_are_no_credentials() -> None:
    assert not parse_token_file(b"[tokens]\n").tokens


ENTRY = f'[tokens.a]\nsha256 = "{ONE}"\nscopes = ["write"]\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("write good-secret\n\nadmin other-secret\n", "line 3: "),
        ("write good-secret\nother-secret\n", "line 2: "),
        ("write good-secret other-secret\n", "line 1: "),
        ("write, good-secret\n", "line 1: "),
        (", good-secret\n", "line 1: "),
        ("WRITE good-secret\n", "line 1: "),
        ("# nothing\n", "no token"),
        ("", "no token"),
        ("write good-secret\n\xff", "not UTF-8"),
        ("[tokens.a]\nsha256 = secret\n", "line 2: "),
        ("[tokens.a]\nsha256 = 'secret\n", "at its end: "),
        ("[tokens.a", "at its end: "),
        (ENTRY + ENTRY, "line 4: "),
        (ENTRY + "[secret.a]\n", "unknown tables"),
        (ENTRY + "[tokens.b]\nscopes = ['write']\n", "[tokens.b]: sha256 must"),
        (ENTRY + "[tokens.b]\nsha256 = 'secret'\nscopes = ['write']\n", "[tokens.b]: sha256"),
        (ENTRY.replace(ONE, ONE.upper()), "[tokens.a]: sha256 must"),
        (ENTRY.replace(f'"{ONE}"', "[]"), "[tokens.a]: sha256 must"),
        (ENTRY + "secret = 'secret'\n", "[tokens.a]: it may have only"),
        (ENTRY.replace("write", "secret"), "[tokens.a]: scopes must"),
        (ENTRY.replace('["write"]', "[]"), "[tokens.a]: scopes must"),
        (ENTRY.replace('["write"]', '"write"'), "[tokens.a]: scopes must"),
        (ENTRY + "expires = '2027-01-01'\n", "[tokens.a]: expires must"),
        (ENTRY + "expires = 2027-01-01T00:00:00\n", "[tokens.a]: expires must"),
        (ENTRY + "rate = -1\n", "[tokens.a]: rate must"),
        (ENTRY + "rate = inf\n", "[tokens.a]: rate must"),
        (ENTRY + "rate = nan\n", "[tokens.a]: rate must"),
        (ENTRY + "rate = true\n", "[tokens.a]: rate must"),
        (ENTRY + "tenant = ''\n", "[tokens.a]: tenant must"),
        (ENTRY + "patient_id = 100\n", "[tokens.a]: patient_id must"),
        (ENTRY.replace("tokens.a", "tokens.'secret secret'"), "a name in [tokens.NAME]"),
        (
            f'[tenants."{"n" * 129}"]',
            "a name in [tenants.NAME] is invalid: use 1 to 128 characters",
        ),
        (ENTRY + ENTRY.replace("tokens.a", "tokens.b"), "a and b are the same"),
        ("[tokens]\na = 'secret'\n", "[tokens.a]: it may have only"),
        ("tokens = 'secret'\n[certificates]\n", "tokens must be tables"),
        ("[certificates.a]\nscopes = ['write']\n", "[certificates.a]: it needs either"),
        (
            "[certificates.a]\nuri = 'a'\nsubject = 'secret'\nscopes = ['write']\n",
            "[certificates.a]: it needs either",
        ),
        ("[" * 3000, "line 1: "),
        (ENTRY + f"rate = 1{'0' * 400}\n", "[tokens.a]: rate must"),
        (ENTRY + f"rate = 1{'0' * 5000}\n", "BUSYAPI_TOKENS_FILE"),
    ],
)
def test_an_error_names_the_place_and_quotes_nothing(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=r"^BUSYAPI_TOKENS_FILE") as error:
        parse_token_file(text.encode("latin-1"))
    assert message in str(error.value)
    assert "secret" not in str(error.value)
    assert ONE not in str(error.value)
    assert error.value.__cause__ is None


KNOWN_NAMES = ("tokens", "certificates", "a", "b", "sha256", "uri", "subject", "scopes", "expires")
NAMES = st.sampled_from([*KNOWN_NAMES, "tenant", "rate", "patient_id"]) | st.text(max_size=3)
VALUES = st.recursive(
    st.none().map(lambda _: f'"{ONE}"')
    | st.sampled_from(['["write"]', "nan", "-inf", "1e400", "1_0", "0001-01-01T00:00:00+23:59"])
    | st.integers().map(str)
    | st.integers(min_value=0, max_value=6000).map(lambda digits: "1" + "0" * digits)
    | st.floats().map(repr)
    | st.booleans().map(lambda value: str(value).lower())
    | st.text(max_size=5).map(json.dumps)
    | st.datetimes(timezones=st.none() | st.timezones()).map(datetime.isoformat)
    | st.dates().map(date.isoformat),
    lambda values: st.lists(values, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=4,
)
MEMBERS = st.builds(lambda name, value: f"{json.dumps(name)} = {value}\n", NAMES, VALUES)
TABLES = st.builds(
    lambda names, members: f"[{'.'.join(map(json.dumps, names))}]\n{''.join(members)}",
    st.lists(NAMES, min_size=1, max_size=3),
    st.lists(MEMBERS, max_size=4),
)
RIGHTS = st.builds(
    lambda member, value: f"{ENTRY}{member} = {value}\n",
    st.sampled_from(["rate", "expires", "tenant", "patient_id"]),
    VALUES,
)


@settings(max_examples=300, deadline=None)
@given(st.lists(TABLES, max_size=3).map("".join) | RIGHTS)
def test_any_toml_is_credentials_or_a_configuration_error(text: str) -> None:
    with suppress(ConfigError):
        parse_token_file(text.encode())


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_credentials_or_a_configuration_error(content: bytes) -> None:
    with suppress(ConfigError):
        parse_token_file(content)


def test_a_file_that_cannot_be_read_or_is_too_large_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token_file(str(path))
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger"):
        read_token_file(str(path))


def test_the_old_format_is_read_with_comments_and_a_hash_within_a_token() -> None:
    text = "#write one\n\n  # two\nread three#four # five\r\nwrite,read six\n"
    file = parse_token_file(text.encode())
    assert file.has_old_format
    assert [(entry.name, entry.scopes) for entry in file.tokens.values()] == [
        ("line-4", frozenset({"read"})),
        ("line-5", frozenset({"read", "write"})),
    ]
    for token in ("three#four", "six"):
        # The Idempotency-Keys of 0.2.0 belong to this id.
        digest = sha256(token.encode())
        assert file.tokens[digest.digest()].id == digest.hexdigest()
    assert "three#four" not in repr(file), "only digests are kept"

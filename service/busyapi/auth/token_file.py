"""The file of credentials, BUSYAPI_TOKENS_FILE or one in this folder: a TOML table for each.

    [tokens.clinic-reader]
    sha256 = "9f86d0…"                 # of the token; a list while it is replaced
    scopes = ["read"]
    expires = 2027-01-01T00:00:00Z     # this and all below are optional
    tenant = "north"
    rate = 50                          # usages per second
    patient_id = "100"                 # the only patient whose usages it may send or read

    [certificates.gateway]
    uri = "spiffe://cluster.local/ns/clinic/sa/gateway"     # or subject = "CN=…,O=…"
    scopes = ["write"]

    [tenants.north]
    rate = 1000                        # usages per second of all its credentials; 0: no limit

The file has digests, not tokens. A message about it names the table, and quotes no value.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from math import inf
from pathlib import Path
from typing import Any

from busyapi.auth.credential import MAX_TEXT_LENGTH, SCOPES, Credential, make_id
from busyapi.auth.token_lines import parse_token_lines
from busyapi.errors import ConfigError

MAX_FILE_BYTES = 16_777_216
MAX_RATE = 1e9
CERTIFICATE_NAMES = ("uri", "subject")

_IS_TOML = re.compile(r"^[ \t]*\[", re.MULTILINE)
"""A line of the old format begins with a right."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TOML_PLACE = re.compile(r"line (\d+), column \d+")
_RIGHTS = frozenset({"scopes", "expires", "tenant", "rate", "patient_id"})
_MEMBERS = {
    "tokens": _RIGHTS | {"sha256"},
    "certificates": _RIGHTS | {*CERTIFICATE_NAMES},
    "tenants": {"rate"},
}


@dataclass(frozen=True)
class CredentialFile:
    """The credentials of a file."""

    tokens: Mapping[bytes, Credential] = field(default_factory=dict)
    """By the SHA-256 of the token."""
    certificates: Mapping[tuple[str, str], Credential] = field(default_factory=dict)
    """By `uri` or `subject`, and its value."""
    tenants: Mapping[str, float] = field(default_factory=dict)
    """The rates of tenants that have their own, 0 for no limit."""
    has_old_format: bool = False


class UnreadableCredentials(ConfigError):
    """BUSYAPI_TOKENS_FILE is not there, or cannot be read."""


def read_token_file(path: str) -> bytes:
    """Return the content of the file.

    Raises:
        UnreadableCredentials: it cannot be read.
        ConfigError: it is too large.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UnreadableCredentials(f"BUSYAPI_TOKENS_FILE cannot be read: {error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"BUSYAPI_TOKENS_FILE is larger than {MAX_FILE_BYTES} bytes")
    return content


def parse_token_file(content: bytes, *, may_be_empty: bool = False) -> CredentialFile:
    """Return the credentials of a file.

    An empty `[tokens]` is always accepted, a file without any line only if `may_be_empty`.

    Raises:
        ConfigError: the message says which line or table is invalid.
    """
    try:
        text = content.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise ConfigError("BUSYAPI_TOKENS_FILE cannot be read: it is not UTF-8") from None
    if not _IS_TOML.search(text):
        tokens_of_lines = parse_token_lines(text)
        if not tokens_of_lines and not may_be_empty:
            raise ConfigError(
                "BUSYAPI_TOKENS_FILE has no token, so every request would get 401. Add one."
            )
        return CredentialFile(tokens_of_lines, has_old_format=bool(tokens_of_lines))
    document = _parse_toml(text)
    if unknown := document.keys() - _MEMBERS.keys():
        raise ConfigError(
            f"BUSYAPI_TOKENS_FILE has {len(unknown)} unknown tables: write [tokens.NAME],"
            " [certificates.NAME] or [tenants.NAME]"
        )
    tokens: dict[bytes, Credential] = {}
    certificates: dict[tuple[str, str], Credential] = {}
    for name, table in _tables(document, "tokens"):
        credential = _make_credential("token", name, table)
        for digest in _read_digests(name, table):
            _add(tokens, digest, credential)
    for name, table in _tables(document, "certificates"):
        credential = _make_credential("certificate", name, table)
        _add(certificates, _read_certificate_name(name, table), credential)
    tenants = {
        name: _read_rate("tenants", name, table) for name, table in _tables(document, "tenants")
    }
    return CredentialFile(tokens, certificates, tenants)


def _parse_toml(text: str) -> dict[str, Any]:
    # Raise below, not in the handler: the parser's error has the text.
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a long number is a ValueError of Python
        place = _TOML_PLACE.search(str(error))
    where = f"line {place[1]}" if place else "at its end"
    raise ConfigError(
        f"BUSYAPI_TOKENS_FILE, {where}: this is not TOML, or a table or member is there twice"
    )


def _tables(document: dict[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    tables = document.get(kind, {})
    if not isinstance(tables, dict):
        raise ConfigError(f"BUSYAPI_TOKENS_FILE: {kind} must be tables [{kind}.NAME]")
    for name, table in tables.items():
        if kind == "tenants":
            # A JWT may name any.
            is_valid = 1 <= len(name) <= MAX_TEXT_LENGTH
            rule = f"1 to {MAX_TEXT_LENGTH} characters"
        else:
            is_valid = bool(_NAME.fullmatch(name))
            rule = "up to 64 letters, digits and . _ -"
        if not is_valid:
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE: a name in [{kind}.NAME] is invalid: use {rule}"
            )
        if not isinstance(table, dict) or table.keys() - _MEMBERS[kind]:
            allowed = ", ".join(sorted(_MEMBERS[kind]))
            raise _error(kind, name, f"it may have only these members: {allowed}")
    return list(tables.items())


def _error(kind: str, name: str, problem: str) -> ConfigError:
    return ConfigError(f"BUSYAPI_TOKENS_FILE, [{kind}.{name}]: {problem}")


def _add(table: dict[Any, Credential], key: Any, credential: Credential) -> None:
    if other := table.get(key):
        raise ConfigError(
            f"BUSYAPI_TOKENS_FILE: {other.name} and {credential.name} are the same credential"
        )
    table[key] = credential


def _make_credential(kind: str, name: str, table: dict[str, Any]) -> Credential:
    group = f"{kind}s"
    return Credential(
        id=make_id(kind, name),
        name=name,
        scopes=_read_scopes(group, name, table),
        tenant=_read_text(group, name, table, "tenant") or "",
        patient_id=_read_text(group, name, table, "patient_id"),
        rate=_read_rate(group, name, table),
        expires_at=_read_expiry(group, name, table.get("expires")),
    )


def _read_rate(kind: str, name: str, table: dict[str, Any]) -> float:
    rate = table.get("rate", 0)
    # No float is as large as some numbers of TOML.
    if type(rate) not in {int, float} or not 0 <= rate <= MAX_RATE:
        raise _error(kind, name, "rate must be a number of usages per second")
    return float(rate)


def _read_scopes(kind: str, name: str, table: dict[str, Any]) -> frozenset[str]:
    scopes = table.get("scopes")
    if (
        not isinstance(scopes, list)
        or not scopes
        or not all(isinstance(scope, str) and scope in SCOPES for scope in scopes)
    ):
        raise _error(kind, name, f"scopes must be a list of {', '.join(sorted(SCOPES))}")
    return frozenset(scopes)


def _read_text(kind: str, name: str, table: dict[str, Any], member: str) -> str | None:
    text = table.get(member)
    if text is None or (isinstance(text, str) and 1 <= len(text) <= MAX_TEXT_LENGTH):
        return text
    raise _error(kind, name, f"{member} must be a text of 1 to {MAX_TEXT_LENGTH} characters")


def _read_expiry(kind: str, name: str, expires: Any) -> float:
    if expires is None:
        return inf
    if isinstance(expires, datetime) and expires.tzinfo:
        return expires.timestamp()
    if isinstance(expires, date) and not isinstance(expires, datetime):
        return datetime.combine(expires, time(), UTC).timestamp()
    raise _error(kind, name, "expires must be a date, or a time with an offset, without quotes")


def _read_digests(name: str, table: dict[str, Any]) -> list[bytes]:
    digests = table.get("sha256")
    digests = digests if isinstance(digests, list) else [digests]
    if not digests or not all(isinstance(d, str) and _SHA256.fullmatch(d) for d in digests):
        raise _error(
            "tokens",
            name,
            "sha256 must be the digest of the token in 64 lower-case hexadecimal digits, or a list"
            " of such; `busyapi token create` prints it",
        )
    return [bytes.fromhex(digest) for digest in digests]


def _read_certificate_name(name: str, table: dict[str, Any]) -> tuple[str, str]:
    names = [(kind, table[kind]) for kind in CERTIFICATE_NAMES if kind in table]
    if len(names) != 1 or not isinstance(names[0][1], str) or not names[0][1]:
        raise _error("certificates", name, "it needs either uri or subject, as text")
    return names[0]

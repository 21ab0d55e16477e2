"""Which credentials are accepted, and how long they are remembered."""

from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import pytest

from busyapi.auth import authenticator as module
from busyapi.auth.authenticator import ENTRY_BYTES, Authenticator
from busyapi.auth.credential import Credential
from busyapi.auth.jwt_authenticator import JwtAuthenticator
from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.key_source import make_key_source
from busyapi.auth.token_file import CredentialFile
from busyapi.errors import InvalidCredential
from testkit.jwt_issuer import AUDIENCE, ISSUER, Issuer

SCOPES = frozenset({"write"})


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def make_file(*tokens: str, expires_at: float = 2000.0) -> CredentialFile:
    return CredentialFile(
        {
            sha256(token.encode()).digest(): Credential(token, token, SCOPES, expires_at=expires_at)
            for token in tokens
        }
    )


async def test_a_known_token_is_accepted_and_remembered_by_its_bytes() -> None:
    header = b"Bearer a"
    authenticator = Authenticator(make_file("a"))
    assert authenticator.recall(header) is None
    assert (await authenticator.authenticate(header)).name == "a"
    assert authenticator.recall(header) is await authenticator.authenticate(header)
    assert authenticator.recall(header + b" ") is None


@pytest.mark.parametrize("header", [b"bearer a", b"BEARER   a\t", b"Bearer a ", b"Bearer  a"])
async def test_other_spellings_are_accepted_and_not_remembered(header: bytes) -> None:
    authenticator = Authenticator(make_file("a"))
    for _ in range(2):
        assert (await authenticator.authenticate(header)).name == "a"
        assert authenticator.recall(header) is None
    assert authenticator._remembered_bytes == 0


@pytest.mark.parametrize(
    "header", [b"", b"Bearer", b"Bearer ", b"Bearer b", b"Basic a", b"a", b"Bearer a b", b"\xff"]
)
async def test_anything_else_is_refused_and_not_remembered(header: bytes) -> None:
    authenticator = Authenticator(make_file("a"))
    with pytest.raises(InvalidCredential):
        await authenticator.authenticate(header)
    assert authenticator.recall(header) is None
    assert not authenticator._remembered


async def test_a_remembered_credential_ends_when_it_expires(clock: Clock) -> None:
    authenticator = Authenticator(make_file("a"))
    await authenticator.authenticate(b"Bearer a")
    clock.now = 2000.0
    assert authenticator.recall(b"Bearer a") is None
    with pytest.raises(InvalidCredential):
        await authenticator.authenticate(b"Bearer a")
    assert authenticator._remembered_bytes == 0


async def test_a_remembered_credential_ends_when_it_is_revoked() -> None:
    authenticator = Authenticator(make_file("a", "b"))
    await authenticator.authenticate(b"Bearer a")
    authenticator.replace_file(make_file("b"))
    assert authenticator.recall(b"Bearer a") is None
    with pytest.raises(InvalidCredential):
        await authenticator.authenticate(b"Bearer a")
    assert (await authenticator.authenticate(b"Bearer b")).name == "b"


async def test_only_a_signature_is_announced(issuer: Issuer, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(issuer.key_set())
    source = make_key_source(str(path), ca_file="", refresh_seconds=60, keep_seconds=60)
    jwt = JwtAuthenticator(ClaimRules(ISSUER, (AUDIENCE,)), source)
    await source.refresh()
    authenticator = Authenticator(make_file("a.b.c"), jwt)
    announced: list[None] = []
    token = issuer.issue(exp=4_000_000_000)
    for header in (b"Bearer a.b.c", b"Bearer no-jwt", f"Bearer {token}".encode()) * 2:
        with suppress(InvalidCredential):
            await authenticator.authenticate(header, lambda: announced.append(None))
    assert len(announced) == 1


async def test_the_memory_is_bounded_in_bytes_and_drops_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens = [f"token-{number}" for number in range(9)]
    headers = [f"Bearer {token}".encode() for token in tokens]
    monkeypatch.setattr(module, "MAX_REMEMBERED_BYTES", 4 * (len(headers[0]) + ENTRY_BYTES))
    authenticator = Authenticator(make_file(*tokens))
    for header in headers:
        await authenticator.authenticate(header)
    assert [authenticator.recall(header) is not None for header in headers] == [False] * 5 + (
        [True] * 4
    )
    authenticator.forget_all()
    assert authenticator._remembered_bytes == 0

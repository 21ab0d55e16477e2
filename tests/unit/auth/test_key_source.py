"""When keys are fetched, and how long they are used."""

import asyncio
import json
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from busyapi.auth import key_source as module
from busyapi.auth.jwt_authenticator import JwtAuthenticator
from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.key_set import KeySet
from busyapi.auth.key_source import KeySource, make_key_source
from busyapi.errors import ConfigError, CredentialKeysUnavailable, InvalidCredential
from testkit.jwt_issuer import AUDIENCE, EC, EDDSA, ISSUER, PSS, RSA, Issuer

RULES = ClaimRules(ISSUER, (AUDIENCE,))


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
def path(tmp_path: Path, issuer: Issuer) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(issuer.key_set())
    return path


def make_source(path: Path, keep_seconds: float = 60.0) -> KeySource:
    return make_key_source(str(path), ca_file="", refresh_seconds=60.0, keep_seconds=keep_seconds)


async def test_without_keys_a_token_is_neither_valid_nor_invalid(
    path: Path, issuer: Issuer
) -> None:
    source = make_source(path)
    authenticator = JwtAuthenticator(RULES, source)
    with pytest.raises(CredentialKeysUnavailable):
        await authenticator.verify(issuer.issue(EC).encode())
    assert authenticator.problem
    await source.refresh()
    assert not authenticator.problem
    assert (await authenticator.verify(issuer.issue(EC).encode())).name.startswith("jwt:clinic/")


async def test_an_unknown_key_causes_one_fetch_in_a_while_for_all_who_wait(
    clock: Clock, path: Path
) -> None:
    new = Issuer(EDDSA)
    source = make_source(path)
    authenticator = JwtAuthenticator(RULES, source)
    await source.refresh()
    path.write_text(new.key_set().replace(f'"kid": "{EDDSA}"', '"kid": "new"'))
    token = new.issue(EDDSA, header={"kid": "new"}).encode()
    # The timer has just fetched, and yet a new key is found at once.
    verified = await asyncio.gather(*(authenticator.verify(token) for _ in range(9)))
    assert len({entry.name for entry in verified}) == 1
    path.unlink()
    strange = new.issue(EDDSA, header={"kid": "strange"}).encode()
    failures: list[None] = []
    source.on_failure = lambda: failures.append(None)
    for _ in range(9):
        with pytest.raises(InvalidCredential):
            await authenticator.verify(strange)
    assert not failures, "it was fetched again"
    clock.now += module.MIN_REFRESH_SECONDS
    for _ in range(9):
        with pytest.raises(InvalidCredential):
            await authenticator.verify(strange)
    assert len(failures) == 1


async def test_a_cancelled_request_does_not_cancel_the_fetch_of_others(path: Path) -> None:
    source = make_source(path)
    authenticator = JwtAuthenticator(RULES, source)
    first, second = (asyncio.create_task(source.refresh()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert not authenticator.problem


async def test_the_last_keys_are_used_for_their_time(
    clock: Clock, path: Path, issuer: Issuer
) -> None:
    source = make_source(path, keep_seconds=60)
    authenticator = JwtAuthenticator(RULES, source)
    changes: list[None] = []
    authenticator.on_change = lambda: changes.append(None)
    await source.refresh()
    content, token = path.read_text(), issuer.issue().encode()
    with capture_logs() as logs:
        for bad in (None, "{}", "not JSON"):
            path.unlink() if bad is None else path.write_text(bad)
            for _ in range(2):
                await source.refresh()
            assert await authenticator.verify(token)
    assert [entry["event"] for entry in logs] == ["credentials_not_reloaded"] * 3
    assert len(changes) == 1
    clock.now += 61
    await source.refresh()
    assert len(changes) == 2
    with pytest.raises(CredentialKeysUnavailable):
        await authenticator.verify(token)
    assert not authenticator.problem, "other pods have no keys either"
    path.write_text(content)
    await source.refresh()
    assert await authenticator.verify(token)
    assert len(changes) == 3


async def test_unchanged_keys_change_nothing(path: Path) -> None:
    source = make_source(path)
    changes: list[KeySet | None] = []
    source.on_change = changes.append
    for _ in range(3):
        await source.refresh()
    assert len(changes) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://provider.example/jwks",
        "http://127.0.0.1.attacker.example/jwks",
        "file:///etc/passwd",
        "ftp://provider/jwks",
    ],
)
def test_an_address_without_tls_is_refused(location: str) -> None:
    with pytest.raises(ConfigError, match="https"):
        make_key_source(location, ca_file="", refresh_seconds=1, keep_seconds=1)


def test_a_bad_authority_is_an_error(tmp_path: Path) -> None:
    for ca_file in (tmp_path / "none", tmp_path):
        with pytest.raises(ConfigError, match="BUSYAPI_JWT_CA_FILE"):
            make_key_source(
                "https://provider", ca_file=str(ca_file), refresh_seconds=1, keep_seconds=1
            )


async def test_the_same_keys_written_in_another_way_change_nothing(path: Path) -> None:
    changes: list[KeySet | None] = []
    source = make_source(path)
    source.on_change = changes.append
    await source.refresh()
    document = json.loads(path.read_text())
    for keys in (document["keys"][::-1], [key | {"x5t": "new"} for key in document["keys"]]):
        path.write_text(json.dumps({"keys": keys}, indent=1))
        await source.refresh()
        assert len(changes) == 1
    swapped = {RSA: PSS, PSS: RSA}
    renamed = [key | {"kid": swapped.get(key["kid"], key["kid"])} for key in document["keys"]]
    for number, keys in enumerate((document["keys"][:-1], renamed), 2):
        path.write_text(json.dumps({"keys": keys}))
        await source.refresh()
        assert len(changes) == number

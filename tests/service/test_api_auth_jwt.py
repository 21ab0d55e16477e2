"""JWTs of a running API process: scopes and limits, a real provider, and attacks."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from testkit.api_client import (
    BODY,
    USAGE,
    RawConnection,
    check_nothing_stored,
    check_problem,
    check_stored,
    check_unavailable,
    render_request,
    send,
)
from testkit.http1 import Answer, fetch
from testkit.jwt_issuer import ALGORITHMS, EC, EDDSA, PATIENT, RSA, Issuer, make_claims
from testkit.jwt_provider import Provider
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks
from tests.service.conftest import StartApi

BATCH = "/api/usages/batch"
SHORT, FULL, LONG = 3_000, 20_000, 100_000


def post(api: Api, token: str, path: str = "/api/usages", **more: str) -> Answer:
    """Post a usage with a token."""
    body = [USAGE] if path == BATCH else USAGE
    return send(api.port, body, path, authorization=f"Bearer {token}", **more)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_is_accepted_the_first_time_and_later(
    contract: Stack, jwt_api: Api, issuer: Issuer, algorithm: str
) -> None:
    number = check_stored(send(contract.port, USAGE))
    token = issuer.issue(algorithm, scope="openid write read")
    for _ in range(3):
        check_stored(post(jwt_api, token))
        assert post(jwt_api, token, BATCH).status == 201
        headers = {"authorization": f"Bearer {token}"}
        assert fetch(jwt_api.port, f"/api/usages/{number}", headers=headers).status == 200


def test_claims_give_scopes_and_bind_the_patient(jwt_api: Api, issuer: Issuer) -> None:
    check_stored(post(jwt_api, issuer.issue(patient=PATIENT)))
    for _ in range(2):
        refused = check_problem(post(jwt_api, issuer.issue(patient="another")), 403)
        assert refused["errors"][0]["pointer"] == "/patientId"
        check_problem(post(jwt_api, issuer.issue(scope="read")), 403)
        check_problem(post(jwt_api, issuer.issue(rate="fast")), 401)
    limited = issuer.issue(rate=0.01, sub="slow")
    assert [post(jwt_api, limited).status for _ in range(3)] == [201, 429, 429]
    # Another token of the same subject has the same bucket.
    assert post(jwt_api, issuer.issue(rate=0.01, sub="slow", jti="2")).status == 429


def test_a_key_belongs_to_the_subject_not_to_the_token(jwt_api: Api, issuer: Issuer) -> None:
    one, renewed, other = (
        issuer.issue(sub=f"subject-{sub}", jti=jti) for sub, jti in ("aa", "ab", "ba")
    )
    first = check_stored(post(jwt_api, one, idempotency_key="jwt-1"))
    assert check_stored(post(jwt_api, renewed, idempotency_key="jwt-1")) == first
    assert check_stored(post(jwt_api, other, idempotency_key="jwt-1")) != first


def test_an_expired_token_is_refused_after_its_leeway(jwt_api: Api, issuer: Issuer) -> None:
    token = issuer.issue(exp=make_claims()["iat"] + 3)
    post(jwt_api, token)  # remembered, unless the machine is very slow
    headers = {"x_forwarded_for": "198.51.100.77"}
    wait_until(lambda: post(jwt_api, token, **headers).status == 401, "its end", every=0.25)


def test_tokens_of_other_issuers_are_401_and_nothing_is_stored(
    contract: Stack, jwt_api: Api, issuer: Issuer
) -> None:
    stranger = Issuer(RSA)
    with check_nothing_stored(contract.port):
        for token in (
            stranger.issue(),
            stranger.issue(header={"kid": "unknown"}),
            issuer.issue(iss="https://other.example"),
            issuer.issue(aud="other"),
            issuer.issue().rpartition(".")[0] + ".",
        ):
            for path in ("/api/usages", BATCH):
                check_problem(post(jwt_api, token, path, x_forwarded_for="198.51.100.2"), 401)


def test_a_token_too_large_is_401_or_413(start_api: StartApi, issuer: Issuer, jwks: Path) -> None:
    api = start_api(**issuer.settings(str(jwks)), BUSYAPI_MAX_HEADER_BYTES="65536")
    check_stored(post(api, issuer.issue(filler="x" * 3000)))
    for size in (6_000, 20_000, 40_000):
        check_problem(post(api, issuer.issue(filler="x" * size)), 401)
    check_problem(post(api, "x" * 70_000), 413)


@pytest.mark.parametrize(
    "tokens",
    [
        SHORT,
        pytest.param(FULL, marks=[pytest.mark.full, pytest.mark.timeout(300)]),
        pytest.param(LONG, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_mutated_tokens_are_refused_and_log_no_exception(
    contract: Stack, jwt_api: Api, issuer: Issuer, tokens: int
) -> None:
    valid = {algorithm: issuer.issue(algorithm).encode() for algorithm in (RSA, EC, EDDSA)}
    requests = islice(make_mutants(random.Random(7), list(valid.values())), tokens)
    statuses: dict[int, int] = {}
    with check_nothing_stored(contract.port), RawConnection(jwt_api.port, 60) as device:
        while group := list(islice(requests, 200)):
            device.send(b"".join(group))
            for _ in group:
                status = device.read_answer().status
                statuses[status] = statuses.get(status, 0) + 1
    assert statuses == {401: tokens}
    assert b"unexpected_error" not in jwt_api.log.read_bytes()
    for token in valid.values():
        check_stored(post(jwt_api, token.decode()))


def exhaust_failures(api: Api, address: str) -> None:
    """Send requests without a credential from an address until it gets 429."""
    headers = {"x-forwarded-for": address}
    for _ in range(300):
        if fetch(api.port, "/api/usages/1", headers=headers).status == 429:
            return
    raise AssertionError("the address has no limit")


def test_jwts_of_an_address_that_failed_too_often_are_refused_before_they_are_verified(
    jwt_api: Api, issuer: Issuer
) -> None:
    address, other = "203.0.113.7", "203.0.113.8"
    known = issuer.issue(sub="known")
    check_stored(post(jwt_api, known))
    exhaust_failures(jwt_api, address)
    statuses = set()
    for number in range(5):  # a refill allows one request in a second
        statuses.add(
            post(jwt_api, issuer.issue(sub=f"new-{number}"), x_forwarded_for=address).status
        )
        exhaust_failures(jwt_api, address)
    assert 429 in statuses
    check_stored(post(jwt_api, known, x_forwarded_for=address))
    check_stored(post(jwt_api, issuer.issue(sub="new"), x_forwarded_for=other))
    # The bucket of a proxy that names no client is that of all its clients.
    exhaust_failures(jwt_api, "127.0.0.1")
    check_stored(post(jwt_api, issuer.issue(sub="newest")))


def test_without_trusted_proxies_a_valid_jwt_always_passes(
    start_api: StartApi, issuer: Issuer, jwks: Path
) -> None:
    api = start_api(**issuer.settings(str(jwks)))
    exhaust_failures(api, "203.0.113.7")
    check_stored(post(api, issuer.issue(), x_forwarded_for="203.0.113.7"))


def make_mutants(chance: random.Random, valid: list[bytes]) -> Iterator[bytes]:
    """Yield posts with a token in which visible characters changed, each from its own address."""
    alphabet = bytes(range(0x21, 0x7F))
    known = set(valid)
    number = 0
    while True:
        token = bytearray(chance.choice(valid))
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(token))
            token[at : at + chance.randrange(3)] = bytes(
                chance.choices(alphabet, k=chance.randrange(1, 3))
            )
        if bytes(token) in known:
            continue
        number += 1
        address = f"198.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        lines = (f"Authorization: Bearer {token.decode()}", f"X-Forwarded-For: {address}")
        yield render_request("POST", "/api/usages", BODY, headers=lines)


@pytest.mark.faults
def test_keys_in_a_file_are_replaced_while_the_process_runs(
    start_api: StartApi, tmp_path: Path
) -> None:
    old, new = Issuer(EDDSA), Issuer(EDDSA)
    path = tmp_path / "jwks.json"
    path.write_text(old.key_set())
    api = start_api(**old.settings(str(path)), BUSYAPI_TRUSTED_PROXIES="127.0.0.0/8")
    before, after = old.issue(EDDSA), new.issue(EDDSA)
    assert [post(api, before).status for _ in range(2)] == [201, 201]
    path.write_text("[]")
    failures = "busyapi_credential_reload_failures_total"
    wait_until(lambda: api.read_metric(failures, source="keys") > 0, "the failure")
    check_stored(post(api, before))
    path.write_text(new.key_set())
    wait_until(lambda: post(api, after).status == 201, "the new key", every=0.2)
    check_problem(post(api, before), 401)


@pytest.mark.faults
class TestProvider:
    """A real OpenID provider, its rotation and its outages."""

    @pytest.fixture
    def provider(self, tmp_path: Path) -> Iterator[Provider]:
        users = {
            "device-7": {"scope": "write", "patient": PATIENT},
            "clinic": {"scope": "read", "azp": "clinic"},
        }
        with Provider(tmp_path, **users) as provider:
            yield provider

    def test_its_tokens_are_accepted_and_its_key_may_change_under_load(
        self, stacks: Stacks, valkey: Server, provider: Provider
    ) -> None:
        stack = stacks(valkey, settings={**provider.settings(), "BUSYAPI_JWT_REFRESH": "3600"})
        (api,) = stack.apis
        device, clinic = provider.log_in("device-7"), provider.log_in("clinic")
        number = check_stored(post(api, device))
        headers = {"authorization": f"Bearer {clinic}"}
        assert fetch(api.port, f"/api/usages/{number}", headers=headers).status == 200
        check_problem(post(api, clinic), 403)
        provider.restart()  # with another key
        renewed = provider.log_in("device-7")
        with ThreadPoolExecutor(8) as pool:
            # All wait for the same request to the provider, and none is refused.
            statuses = [*pool.map(lambda _: post(api, renewed).status, range(40))]
        assert set(statuses) == {201}
        check_problem(post(api, device), 401)

    def test_the_last_good_keys_are_used_while_it_is_down(
        self, stacks: Stacks, valkey: Server, provider: Provider
    ) -> None:
        settings = {**provider.settings(), "BUSYAPI_JWT_REFRESH": "1", "BUSYAPI_JWT_KEEP_KEYS": "6"}
        (api,) = stacks(valkey, settings=settings).apis
        token, second = provider.log_in("device-7"), provider.log_in("clinic")
        check_stored(post(api, token))
        provider.kill9()
        failures = "busyapi_credential_reload_failures_total"
        wait_until(lambda: api.read_metric(failures, source="keys") > 0, "the outage")
        check_stored(post(api, token))
        check_problem(post(api, second), 403)  # not remembered before
        # After their time even a remembered token is refused: its key may have been revoked.
        wait_until(lambda: post(api, token).status == 503, "the keys to be dropped", seconds=20)
        check_unavailable(post(api, token), "no")
        assert fetch(api.port, "/readyz").status == 200, "all pods would leave the Service at once"
        provider.start()
        renewed = provider.log_in("device-7")
        wait_until(lambda: post(api, renewed).status == 201, "the keys", every=0.2)

    def test_a_process_is_not_ready_before_its_first_keys(
        self, stacks: Stacks, valkey: Server, provider: Provider, tmp_path: Path
    ) -> None:
        with ExitStack() as running:
            stack = stacks(valkey)
            provider.stop()
            environment = {**(stack.apis[0].environment or {}), **provider.settings()}
            folder = tmp_path / "late"
            api = Api(folder, "late", reserve_port(), environment)
            running.callback(api.close)
            api.spawn()
            wait_until(lambda: _get_status(api.port) == 503, "the port")
            assert b"credentials: " in fetch(api.port, "/readyz").body
            check_unavailable(post(api, Issuer(EC).issue(EC)), "no")
            check_problem(post(api, "no-jwt"), 401)
            token = Issuer(EC).issue(EC)
            statuses = {post(api, token).status for _ in range(150)}
            assert statuses == {503, 429}, "it counts as a failure"
            provider.start()
            api.wait_until_ready()
            check_stored(post(api, provider.log_in("device-7")))


def _get_status(port: int) -> int:
    try:
        return fetch(port, "/readyz").status
    except OSError:
        return 0

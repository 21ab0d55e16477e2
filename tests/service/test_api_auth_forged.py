"""What forged JWTs make a process do: signatures are verified last, and not for each request."""

from collections import Counter
from pathlib import Path

import pytest

from testkit.api_client import USAGE, check_stored, send
from testkit.jwt_issuer import ALGORITHMS, EC, Issuer, encode_part, make_claims
from testkit.processes import Api
from tests.service.conftest import StartApi

LIMIT = 60
"""Refusals at once for each address."""
REQUESTS = 4 * LIMIT


def post(api: Api, token: str, address: str) -> int:
    """Post a usage with a token, and return the status."""
    headers = {"authorization": f"Bearer {token}", "x_forwarded_for": address}
    return send(api.port, USAGE, **headers).status


def count_signatures(api: Api, result: str) -> int:
    return int(api.read_metric("busyapi_jwt_signatures_total", result=result))


def forge(issuer: Issuer, algorithm: str, number: int) -> str:
    """Return a token with the claims of a valid one, and the signature of another one."""
    header, claims, _ = issuer.issue(algorithm, jti=f"forged-{number}").split(".")
    return f"{header}.{claims}.{issuer.issue(algorithm).rpartition('.')[2]}"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_address_that_failed_too_often_has_no_more_signatures_verified(
    jwt_api: Api, issuer: Issuer, algorithm: str
) -> None:
    address = f"203.0.113.{10 + ALGORITHMS.index(algorithm)}"
    before = count_signatures(jwt_api, "invalid")
    statuses = Counter(
        post(jwt_api, forge(issuer, algorithm, number), address) for number in range(REQUESTS)
    )
    assert statuses.keys() == {401, 429}
    assert statuses[401] >= LIMIT
    # A 429 has cost no signature. How many there are depends on how fast the requests come.
    assert count_signatures(jwt_api, "invalid") - before == statuses[401]


def test_valid_token_has_its_signature_verified_once(jwt_api: Api, issuer: Issuer) -> None:
    before = count_signatures(jwt_api, "valid")
    token = issuer.issue(sub="once")
    assert {post(jwt_api, token, "203.0.113.1") for _ in range(5)} == {201}
    assert count_signatures(jwt_api, "valid") == before + 1


def test_token_that_is_refused_for_its_claims_has_no_signature_verified(
    jwt_api: Api, issuer: Issuer
) -> None:
    now = make_claims()["iat"]
    header, claims, signature = issuer.issue().split(".")
    tokens = [
        issuer.issue(exp=now - 600),
        issuer.issue(iss="https://other.example"),
        issuer.issue(aud="other"),
        issuer.issue(header={"kid": "unknown"}),
        issuer.issue(header={"crit": ["exp"]}),
        f"{encode_part({'alg': 'none'})}.{claims}.{signature}",
        f"{header}.{encode_part(b'{')}.{signature}",
        f"{header}.{claims[:-2]}.{signature}",
    ]
    before = [count_signatures(jwt_api, result) for result in ("valid", "invalid")]
    assert [post(jwt_api, token, "203.0.113.2") for token in tokens] == [401] * len(tokens)
    assert [count_signatures(jwt_api, result) for result in ("valid", "invalid")] == before
    assert post(jwt_api, issuer.issue(exp=now + 600), "203.0.113.2") == 201


def test_without_trusted_proxies_each_signature_is_verified(
    start_api: StartApi, issuer: Issuer, jwks: Path
) -> None:
    """The address may be that of a proxy, whose clients must not lock each other out."""
    api = start_api(**issuer.settings(str(jwks)))
    statuses = Counter(
        post(api, forge(issuer, EC, number), "203.0.113.3") for number in range(REQUESTS)
    )
    assert statuses.keys() == {401, 429}
    assert count_signatures(api, "invalid") == REQUESTS
    check_stored(send(api.port, USAGE, authorization=f"Bearer {issuer.issue()}"))

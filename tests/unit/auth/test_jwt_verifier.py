"""Tokens that must be accepted, and attacks that must fail (RFC 8725)."""

import json
import random
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.jwt_verifier import MAX_TOKEN_BYTES, JwtVerifier, UnknownKey
from busyapi.auth.key_set import parse_key_set
from busyapi.errors import InvalidCredential
from testkit.jwt_issuer import (
    ALGORITHMS,
    AUDIENCE,
    EC,
    ISSUER,
    RSA,
    Issuer,
    encode_part,
    generate_key,
    make_claims,
)

LEEWAY = 30.0


@pytest.fixture(scope="module")
def verifier(issuer: Issuer) -> JwtVerifier:
    keys = parse_key_set(issuer.key_set().encode())
    return JwtVerifier(ClaimRules(ISSUER, ("other", AUDIENCE), leeway=LEEWAY), keys)


def is_accepted(verifier: JwtVerifier, token: str | bytes) -> bool:
    try:
        verifier.verify(token if isinstance(token, bytes) else token.encode())
    except InvalidCredential:
        return False
    return True


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["JWT", "at+jwt", "application/at+JWT", None])
def test_a_token_of_the_issuer_is_accepted(
    issuer: Issuer, verifier: JwtVerifier, algorithm: str, kind: str | None
) -> None:
    token = issuer.issue(algorithm, header={"typ": kind})
    for _ in range(2):
        assert verifier.verify(token.encode()).name.startswith("jwt:clinic/")


def test_without_an_id_the_only_key_of_an_algorithm_is_used(
    issuer: Issuer, verifier: JwtVerifier
) -> None:
    assert is_accepted(verifier, jwt.encode(make_claims(), issuer.keys[EC], EC))
    # The provider may have replaced it.
    with pytest.raises(UnknownKey):
        verifier.verify(jwt.encode(make_claims(), generate_key(EC), EC).encode())


def sign(issuer: Issuer, header: Any, claims: Any = None, algorithm: str = RSA) -> str:
    """Return a token with any header, signed with the issuer's key."""
    content = make_claims() if claims is None else claims
    text = f"{encode_part(header)}.{encode_part(content)}"
    key = issuer.keys[algorithm]
    signature = jwt.get_algorithm_by_name(algorithm).sign(text.encode(), key)
    return f"{text}.{encode_part(signature)}"


HEADER = {"alg": RSA, "kid": RSA, "typ": "JWT"}


NO_ALGORITHMS: list[Any] = ["none", "None", "NONE", "nOnE", "", None, 0, [], {}]


def attack_none(_: Issuer) -> list[str]:
    return [
        f"{encode_part(HEADER | {'alg': name})}.{encode_part(make_claims())}.{signature}"
        for name in NO_ALGORITHMS
        for signature in ("", "AA", encode_part(b"x" * 256))
    ]


def attack_confusion(issuer: Issuer) -> list[str]:
    """Use a public key as the secret of an HMAC."""
    key = issuer.keys[RSA].public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = [
        *(key.public_bytes(code, form) for code in (serialization.Encoding.PEM,)),
        key.public_bytes(serialization.Encoding.DER, form),
        json.dumps(issuer.public_key(RSA)).encode(),
        issuer.public_key(RSA)["n"].encode(),
        b"",
    ]
    hmac = [
        f"{text}.{encode_part(jwt.get_algorithm_by_name(name).sign(text.encode(), secret))}"
        for name in ("HS256", "HS384", "HS512")
        for text in [f"{encode_part(HEADER | {'alg': name})}.{encode_part(make_claims())}"]
        for secret in secrets
    ]
    # The name of one algorithm with the signature and the key of another.
    crossed = [
        sign(issuer, {"alg": name, "kid": kid}, algorithm=algorithm)
        for algorithm in ALGORITHMS
        for name in (*ALGORITHMS, "HS256", "RS512", "ES384")
        for kid in ALGORITHMS
        if not algorithm == name == kid
    ]
    return hmac + crossed


def attack_key_id(issuer: Issuer) -> list[str]:
    ids: list[Any] = [
        "../../../../dev/null",
        "/etc/passwd",
        "' OR 1=1 --",
        "RS256\x00",
        "rs256",
        " RS256",
        "http://attacker.example/jwks",
        "x" * 257,
        "",
        7,
        [RSA],
        {"kid": RSA},
        True,
    ]
    return [sign(issuer, HEADER | {"kid": key_id}) for key_id in ids]


def attack_own_key(_: Issuer) -> list[str]:
    """Put an own key, or its address, into the header."""
    attacker = Issuer(RSA, EC)
    embedded: list[dict[str, Any]] = [
        {"jwk": attacker.public_key(RSA)},
        {"jku": "https://attacker.example/jwks"},
        {"x5u": "https://attacker.example/chain"},
        {"x5c": ["MIIB"]},
        {},
    ]
    return [
        sign(attacker, {"alg": name, **kid, **more}, algorithm=name)
        for name in (RSA, EC)
        for kid in [dict[str, Any](kid=name), {"kid": "attacker"}, {}]
        for more in embedded
    ]


def attack_header(issuer: Issuer) -> list[str]:
    members: list[dict[str, Any]] = [
        {"crit": ["exp"]},
        {"crit": []},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"typ": "dpop+jwt"},
        {"typ": "logout+jwt"},
        {"typ": 7},
        {"alg": [RSA]},
        {"alg": f"{RSA} "},
        {"alg": "RS512"},
    ]
    headers: list[Any] = [[HEADER], "header", None, 7, b"{", b"\xff", b""]
    headers += [HEADER | more for more in members]
    return [sign(issuer, header) for header in headers]


def attack_claims(issuer: Issuer) -> list[str]:
    now = int(time.time())
    changes: list[dict[str, Any]] = [
        {"iss": "https://attacker.example"},
        {"iss": ISSUER + "/"},
        {"iss": ISSUER.upper()},
        {"iss": [ISSUER]},
        {"iss": None},
        {"aud": "busyapi2"},
        {"aud": ["a", "b"]},
        {"aud": []},
        {"aud": ""},
        {"aud": [AUDIENCE, 7]},
        {"aud": {AUDIENCE: 1}},
        {"aud": None},
        {"exp": now - LEEWAY - 5},
        {"exp": 0},
        {"exp": -1},
        {"exp": "never"},
        {"exp": [now + 60]},
        {"exp": 1e999},
        {"exp": None},
        {"nbf": now + LEEWAY + 60},
        {"nbf": "later"},
        {"nbf": 1e999},
        {"iat": now + LEEWAY + 60},
        {"iat": {}},
        {"sub": 7},
        {"sub": ["device-7"]},
    ]
    documents: list[Any] = [[make_claims()], "claims", 7, b"null", b"{", b"\xff\xfe", b"[" * 4000]
    signed = [sign(issuer, HEADER, make_claims(**change)) for change in changes]
    return signed + [sign(issuer, HEADER, document) for document in documents]


def attack_form(issuer: Issuer) -> list[str]:
    token = issuer.issue()
    header, claims, signature = token.split(".")
    return [
        "",
        ".",
        "..",
        "...",
        f"{header}.{claims}",
        f"{header}.{claims}.",
        f"{token}.",
        f".{token}",
        f"{token}.{signature}",
        f"{token}=",
        f"{token}\n",
        f"{token} ",
        token.replace(".", ".."),
        token.replace("-", "+").replace("_", "/") + "+",
        f"{header}=.{claims}.{signature}",
        f"{header}.{claims}.{signature[:-1]}",
        f"{header}.{claims}.{signature}A",
        f"{header}.{claims}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        f"{header}.{encode_part(make_claims(scope='admin'))}.{signature}",
        issuer.issue(filler="x" * MAX_TOKEN_BYTES),
        "a." * 5000,
    ]


@pytest.mark.parametrize(
    "attack",
    [
        attack_none,
        attack_confusion,
        attack_key_id,
        attack_own_key,
        attack_header,
        attack_claims,
        attack_form,
    ],
)
def test_an_attack_fails(
    issuer: Issuer, verifier: JwtVerifier, attack: Callable[[Issuer], list[str]]
) -> None:
    assert is_accepted(verifier, issuer.issue()), "the attacks need a valid start"
    assert is_accepted(verifier, sign(issuer, HEADER))
    for token in attack(issuer):
        assert not is_accepted(verifier, token), token


def test_times_are_valid_within_the_leeway(issuer: Issuer, verifier: JwtVerifier) -> None:
    now = int(time.time())
    changes: list[dict[str, Any]] = [{"exp": now - 5}, {"nbf": now + 5}, {"iat": now + 5}]
    for change in changes:
        assert is_accepted(verifier, issuer.issue(**change))


def test_a_token_is_measured_before_it_is_parsed(verifier: JwtVerifier) -> None:
    verifier._headers.clear()
    assert not is_accepted(verifier, b"a" * (MAX_TOKEN_BYTES + 1))
    assert not is_accepted(verifier, b"\xff.\xff.\xff")
    assert not verifier._headers


def test_headers_are_cached_within_a_limit(issuer: Issuer, verifier: JwtVerifier) -> None:
    for number in range(200):
        assert is_accepted(verifier, sign(issuer, HEADER | {"number": number}))
        assert len(verifier._headers) <= 64


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_mutated_token_is_refused_without_another_exception(
    issuer: Issuer, verifier: JwtVerifier, algorithm: str
) -> None:
    """Every text has one meaning: no other text decodes to the same token."""
    token, chance = issuer.issue(algorithm).encode(), random.Random(7)
    for _ in range(1500):
        mutated = mutate(chance, token)
        assert mutated == token or not is_accepted(verifier, mutated), mutated


def mutate(chance: random.Random, token: bytes) -> bytes:
    """Return a token with a byte changed, removed, added or moved."""
    mutated = bytearray(token)
    at = chance.randrange(len(mutated))
    alphabet = b"abcXYZ019-_.=+/\x00\xff"
    match chance.randrange(4):
        case 0:
            mutated[at] = chance.choice(alphabet)
        case 1:
            del mutated[at]
        case 2:
            mutated.insert(at, chance.choice(alphabet))
        case 3:
            mutated[at:] = mutated[at:][::-1]
    return bytes(mutated)

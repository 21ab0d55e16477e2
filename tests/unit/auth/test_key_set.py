"""Which keys of a JSON Web Key Set are used, and for which algorithm."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from busyapi.auth.key_set import MAX_KEYS, parse_key_set
from busyapi.errors import ConfigError
from testkit.jwt_issuer import ALGORITHMS, EC, EDDSA, PSS, RSA, Issuer, generate_key


def parse(*keys: Any) -> Any:
    return parse_key_set(json.dumps({"keys": keys}).encode())


def test_each_key_is_for_the_algorithm_that_it_names(issuer: Issuer) -> None:
    keys = parse_key_set(issuer.key_set().encode())
    assert len(keys) == 4
    for name in ALGORITHMS:
        assert keys.find(name, name) is not None
        assert sum(keys.find(name, other) is not None for other in ALGORITHMS) == 1
        assert keys.find(None, name) is keys.find(name, name), "there is one candidate"
    assert keys.find("other", RSA) is None
    assert keys.find(RSA, "HS256") is None


def test_an_rsa_key_without_an_algorithm_is_for_both(issuer: Issuer) -> None:
    key = issuer.public_key(RSA)
    del key["alg"], key["use"]
    keys = parse(key)
    assert keys.find(RSA, RSA) is keys.find(RSA, PSS) is not None
    assert keys.find(RSA, EC) is None


def test_without_an_id_a_key_must_be_the_only_candidate(issuer: Issuer) -> None:
    one, two = (issuer.public_key(EC) | {"kid": kid} for kid in ("one", "two"))
    keys = parse(one, two)
    assert keys.find(None, EC) is None
    assert keys.find("one", EC) is not None


def unusable(issuer: Issuer) -> list[Any]:
    rsa, curve = issuer.public_key(RSA), issuer.public_key(EC)
    large = RSAAlgorithm.to_jwk(RSAPublicNumbers(65537, (1 << 4096) + 1).public_key(), as_dict=True)
    small = RSAAlgorithm.to_jwk(generate_key(RSA, 1024).public_key(), as_dict=True)
    other_curve = ec.generate_private_key(ec.SECP384R1()).public_key()
    private = RSAAlgorithm.to_jwk(issuer.keys[RSA], as_dict=True)
    return [
        None,
        "key",
        {},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        {"kty": ["RSA"]},
        rsa | {"use": "enc"},
        rsa | {"alg": "RS512"},
        rsa | {"alg": "HS256"},
        rsa | {"alg": EC},
        rsa | {"kty": "EC"},
        rsa | {"n": "AQAB"},
        rsa | {"n": 7},
        rsa | {"e": None},
        rsa | {"kid": 7},
        rsa | {"key_ops": ["sign"]},
        rsa | {"key_ops": "verify"},
        {name: value for name, value in rsa.items() if name != "n"},
        small | {"alg": RSA},
        large | {"alg": RSA},
        private,
        curve | {"x": curve["y"]},
        curve | {"crv": "P-384"},
        curve | {"crv": ["P-256"]},
        ECAlgorithm.to_jwk(other_curve, as_dict=True),
        issuer.public_key(EDDSA) | {"crv": "Ed448"},
    ]


def test_any_other_key_is_skipped(issuer: Issuer) -> None:
    good = issuer.public_key(EDDSA)
    for key in unusable(issuer):
        assert len(parse(key, good)) == 1, key
        with pytest.raises(ConfigError, match="no public key"):
            parse(key)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"keys":{}}',
        b'{"keys":[]}',
        b"[" * 100_000,
        json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(),
    ],
)
def test_any_other_document_is_an_error(content: bytes) -> None:
    with pytest.raises(ConfigError, match="key set"):
        parse_key_set(content)

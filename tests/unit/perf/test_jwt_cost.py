"""The measurement of refused JWTs measures refused ones."""

import random

import pytest

from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.jwt_verifier import JwtVerifier
from busyapi.auth.key_set import parse_key_set
from busyapi.errors import InvalidCredential
from perf.jwt_cost import MUTATIONS, Mutation, measure_all
from testkit.jwt_issuer import AUDIENCE, EC, ISSUER, Issuer


@pytest.mark.parametrize("mutate", MUTATIONS.values(), ids=MUTATIONS)
def test_each_kind_is_refused(mutate: Mutation) -> None:
    issuer, chance = Issuer(EC), random.Random(7)
    verifier = JwtVerifier(
        ClaimRules(ISSUER, (AUDIENCE,)), parse_key_set(issuer.key_set().encode())
    )
    token = issuer.issue(EC)
    assert verifier.verify(token.encode())
    for _ in range(20):
        mutant = mutate(chance, token)
        assert mutant != token
        with pytest.raises(InvalidCredential):
            verifier.verify(mutant.encode())


def test_each_algorithm_and_kind_has_a_figure() -> None:
    rows = list(measure_all(tokens=3, rounds=1))
    assert len(rows) == 4 * (len(MUTATIONS) + 1)
    assert all(microseconds > 0 for _, _, microseconds in rows)

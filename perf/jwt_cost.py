"""Measure what a refused JWT costs, by its algorithm and by what is wrong with it.

python -m perf.jwt_cost
"""

import random
import sys
import time
from collections.abc import Callable, Iterator

from busyapi.auth.jwt_claims import ClaimRules
from busyapi.auth.jwt_verifier import JwtVerifier
from busyapi.auth.key_set import parse_key_set
from busyapi.errors import InvalidCredential
from testkit.jwt_issuer import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    Issuer,
    encode_part,
    make_claims,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
TOKENS, ROUNDS = 1000, 5

Mutation = Callable[[random.Random, str], str]


def change_part(part: int) -> Mutation:
    """Return a mutation that changes one character of a part."""

    def change(chance: random.Random, token: str) -> str:
        parts = token.split(".")
        at = chance.randrange(len(parts[part]))
        other = chance.choice(ALPHABET.replace(parts[part][at], ""))
        parts[part] = parts[part][:at] + other + parts[part][at + 1 :]
        return ".".join(parts)

    return change


def rewrite_claims(chance: random.Random, token: str) -> str:
    """Return a token with other valid claims and the old signature: the most expensive one."""
    header, _, signature = token.split(".")
    claims = make_claims(scope="read", jti=str(chance.random()))
    return f"{header}.{encode_part(claims)}.{signature}"


def expire(chance: random.Random, token: str) -> str:
    """Return a token with claims that have expired."""
    header, _, signature = token.split(".")
    return f"{header}.{encode_part(make_claims(exp=1, jti=str(chance.random())))}.{signature}"


MUTATIONS: dict[str, Mutation] = {
    "header": change_part(0),
    "claims": change_part(1),
    "expired": expire,
    "signature": change_part(2),
    "valid claims, old signature": rewrite_claims,
}


def measure(verifier: JwtVerifier, tokens: list[str]) -> float:
    """Return the CPU microseconds of one token."""
    encoded = [token.encode() for token in tokens]
    start = time.process_time()
    for token in encoded:
        try:
            verifier.verify(token)
        except InvalidCredential:
            continue
    return (time.process_time() - start) / len(encoded) * 1e6


def measure_all(tokens: int, rounds: int) -> Iterator[tuple[str, str, float]]:
    """Yield the algorithm, what is wrong, and the median of the rounds."""
    issuer, chance = Issuer(), random.Random(7)  # noqa: S311 - no secret
    keys = parse_key_set(issuer.key_set().encode())
    for algorithm in ALGORITHMS:
        verifier = JwtVerifier(ClaimRules(ISSUER, (AUDIENCE,)), keys)
        valid = [issuer.issue(algorithm, jti=str(number)) for number in range(tokens)]
        verifier.verify(valid[0].encode())
        yield algorithm, "nothing, the first time", measure(verifier, valid)
        for kind, mutate in MUTATIONS.items():
            mutants = [mutate(chance, token) for token in valid]
            values = sorted(measure(verifier, mutants) for _ in range(rounds))
            yield algorithm, kind, values[rounds // 2]


def main() -> None:
    """Print a table."""
    sys.stdout.write("| algorithm | what is wrong | µs |\n|---|---|---:|\n")
    for algorithm, kind, microseconds in measure_all(TOKENS, ROUNDS):
        sys.stdout.write(f"| {algorithm} | {kind} | {microseconds:.0f} |\n")


if __name__ == "__main__":
    main()

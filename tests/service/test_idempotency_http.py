"""Idempotency-Keys of whole stacks: their owners, and the limit of their number."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from busyapi.decode.usage import decode_usage
from busyapi.stream.keys import PartitionKeys
from testkit.api_client import BODY, USAGE, check_problem, check_stored, send
from testkit.processes import Stack
from testkit.proxied_server import COMMIT_DIGESTS
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.waiting import wait_until

BATCH = "/api/usages/batch"
BUDGET = 5


@pytest.fixture
def stack(tmp_path: Path, valkey: Server) -> Iterator[Stack]:
    """A stack with two tokens and a small budget, whose API reaches Redis through a proxy."""
    tokens = tmp_path / "tokens"
    tokens.write_text("write deviceA\nwrite deviceB\n")
    settings = {"BUSYAPI_TOKENS_FILE": str(tokens), "BUSYAPI_IDEMPOTENCY_KEYS": str(BUDGET)}
    with Stack(tmp_path / "stack", valkey, settings=settings) as stack:
        yield stack


def test_key_belongs_to_its_credential_and_keys_have_a_budget(stack: Stack) -> None:
    def post(token: str, key: str, **changes: str) -> tuple[int, bool]:
        answer = send(
            stack.port, USAGE | changes, authorization=f"Bearer {token}", idempotency_key=key
        )
        return check_stored(answer), "idempotency-replayed" in answer.headers

    # Two devices with the same counter: the same key, and even the same usage.
    assert post("deviceA", "41") == (1, False)
    assert post("deviceB", "41", medication="another") == (2, False)
    assert post("deviceA", "41") == (1, True)
    assert post("deviceB", "41", medication="another") == (2, True)
    assert post("deviceA", "42") == (3, False)
    # With a credential the patient does not matter: this is another body.
    credential = {"authorization": "Bearer deviceA"}
    other = USAGE | {"patientId": "another"}
    check_problem(send(stack.port, other, idempotency_key="42", **credential), 422)

    for number in range(BUDGET - 3):
        post("deviceA", f"more-{number}")
    refused = check_problem(send(stack.port, USAGE, idempotency_key="new", **credential), 503)
    assert refused["stored"] == "no"
    assert "Idempotency-Key" in refused["detail"]
    check_problem(send(stack.port, [USAGE], BATCH, idempotency_key="new", **credential), 503)
    assert check_stored(send(stack.port, USAGE, **credential)) == BUDGET + 1
    assert post("deviceA", "41") == (1, True)
    assert stack.apis[0].read_metric("busyapi_refused_total", reason="IdempotencyKeysFull") == 2
    (flusher,) = stack.flushers
    wait_until(lambda: flusher.read_metric("busyapi_idempotency_keys") == BUDGET, "the metric")
    assert flusher.read_metric("busyapi_idempotency_keys_max") == BUDGET


def test_own_retry_after_a_lost_answer_is_not_a_replay(tmp_path: Path, valkey: Server) -> None:
    with Proxy(valkey.port) as proxy, Stack(tmp_path / "stack", valkey) as stack:
        (api,) = stack.apis
        api.stop()
        api.environment["BUSYAPI_REDIS_URL"] = proxy.url
        api.start()
        for path, body in (("/api/usages", USAGE), (BATCH, [USAGE, USAGE])):
            proxy.lose_answer(COMMIT_DIGESTS)
            answer = send(stack.port, body, path, idempotency_key="k1" + path)
            proxy.wait_until_lost()
            assert answer.status == 201
            assert "idempotency-replayed" not in answer.headers
            again = send(stack.port, body, path, idempotency_key="k1" + path)
            assert again.headers["idempotency-replayed"] == "true"
            assert again.json() == answer.json()


def test_key_that_0_2_0_stored_is_known(tmp_path: Path, valkey: Server) -> None:
    """This is the state after an upgrade, with the digests of 0.2.0."""
    with Stack(tmp_path / "stack", valkey) as stack:
        first = check_stored(send(stack.port, USAGE))
        digests = compute_digests_of_0_2_0("dose-41")
        valkey.client().set(
            PartitionKeys(0).legacy_idempotency_key(digests[0]), f"{digests[1]} {first}", ex=100
        )
        again = send(stack.port, USAGE, idempotency_key="dose-41")
        assert again.headers["idempotency-replayed"] == "true"
        assert check_stored(again) == first
        another = USAGE | {"medication": "another"}
        assert check_stored(send(stack.port, another, idempotency_key="dose-41")) == first + 1


def compute_digests_of_0_2_0(key: str) -> tuple[str, str]:
    """Return the name that 0.2.0 gave a key, and the digest of USAGE that it stored."""
    line = decode_usage(BODY, strict=True)
    body = sha256(b"\n".join([b"/api/usages", line]))
    return sha256(key.encode()).hexdigest()[:32], body.hexdigest()[:32]

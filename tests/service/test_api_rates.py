"""Rates of credentials and tenants that hold over several API processes."""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest

from testkit.api_client import BODY, USAGE, RawConnection, check_problem, render_request, send
from testkit.http1 import Answer, fetch
from testkit.ports import reserve_port
from testkit.processes import Api, Stack
from testkit.servers import Server
from testkit.waiting import wait_until
from tests.conftest import Stacks

BATCH = "/api/usages/batch"
RATE = 20
SECONDS = 8
BURST = 2 * RATE
CREDIT = 1
"""Of a process."""


def write_credentials(folder: Path, *, tenants: str = "") -> Path:
    """Write four tokens, the first two of one tenant."""
    tables = [
        f'[tokens.{name}]\nsha256 = "{sha256(name.encode()).hexdigest()}"\n'
        f'scopes = ["write", "read"]\n{members}\n'
        for name, members in (
            ("limited", f"rate = {RATE}"),
            ("north-1", 'tenant = "north"'),
            ("north-2", f'tenant = "north"\nrate = {10 * RATE}'),
            ("free", ""),
        )
    ]
    path = folder / "tokens.toml"
    path.write_text("\n".join([*tables, tenants]))
    return path


@contextmanager
def run_apis(stack: Stack, folder: Path, count: int, **settings: str) -> Iterator[list[Api]]:
    """Run API processes on the partition of a stack, each on its own port."""
    common = {**stack.apis[0].environment, **settings}
    with ExitStack() as running:
        yield [
            running.enter_context(Api(folder, f"api-{port}", port, common))
            for port in (reserve_port() for _ in range(count))
        ]


def read_clock(server: Server) -> float:
    """Return the server's time in seconds."""
    seconds, microseconds = server.command("TIME")
    return float(seconds) + float(microseconds) / 1e6


def flood(api: Api, tokens: list[str], requests: int) -> Callable[[], int]:
    """Return a function that sends requests on one connection; it returns how many got a 201."""

    def send_all() -> int:
        stored = 0
        with RawConnection(api.port) as device:
            for number in range(requests):
                token = tokens[number % len(tokens)]
                headers = (f"Authorization: Bearer {token}",) if token else ()
                device.send(render_request("POST", "/api/usages", BODY, headers=headers))
                answer = device.read_answer()
                assert answer.status in {201, 429}, answer
                stored += answer.status == 201
        return stored

    return send_all


def measure(server: Server, floods: list[Callable[[], int]]) -> tuple[int, float]:
    """Send until all floods end, at least some seconds; return how many were stored, and when."""
    before, stored = read_clock(server), 0
    with ThreadPoolExecutor(len(floods)) as pool:
        while read_clock(server) - before < SECONDS:
            stored += sum(future.result(60) for future in [pool.submit(run) for run in floods])
    return stored, read_clock(server) - before


def is_within_tenth(stored: int, elapsed: float, processes: int) -> bool:
    """Return whether that is what one limit allows in this time."""
    budget = BURST + RATE * elapsed
    return 0.9 * budget <= stored <= 1.1 * budget and stored <= budget + processes * CREDIT


def read_taken(server: Server) -> list[int]:
    """Return what was ever taken out of each bucket."""
    keys = server.command("KEYS", "busyapi:{0}:rate:*")
    return [int(server.command("GET", key).split()[2]) for key in keys]


def test_one_credential_has_its_rate_over_all_processes(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    tokens = {"BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path))}
    with run_apis(stack, tmp_path, 3, **tokens) as apis:
        # Uneven: the first process has nearly all.
        sizes = (200, 40, 5)
        floods = [flood(api, ["limited"], size) for api, size in zip(apis, sizes, strict=True)]
        stored, elapsed = measure(valkey, floods)
        (taken,) = read_taken(valkey)
        assert is_within_tenth(stored, elapsed, len(apis)), (stored, elapsed)
        assert 0.9 * taken <= stored <= taken + len(apis) * CREDIT
        refused = sum(
            api.read_metric("busyapi_rate_limited_total", limit="credential") for api in apis
        )
        assert refused > 0
        # Another credential has no limit, and its answers have no headers about one.
        answers = [send(api.port, USAGE, authorization="Bearer free") for api in apis * 2]
        assert {answer.status for answer in answers} == {201}
        assert not any(header.startswith("ratelimit") for a in answers for header in a.headers)


def test_without_shared_portions_each_process_would_allow_the_whole_rate(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    """Use the limit of an address, which is each process's own, to check the check."""
    stack = stacks(valkey)
    with run_apis(stack, tmp_path, 3, BUSYAPI_RATE_LIMIT=str(RATE)) as apis:
        stored, elapsed = measure(valkey, [flood(api, [""], 100) for api in apis])
        assert not is_within_tenth(stored, elapsed, len(apis)), (stored, elapsed)
        assert not read_taken(valkey)


@pytest.mark.parametrize("source", ["file", "setting"])
def test_all_credentials_of_a_tenant_share_its_rate(
    stacks: Stacks, valkey: Server, tmp_path: Path, source: str
) -> None:
    table = f"[tenants.north]\nrate = {RATE}\n" if source == "file" else ""
    settings = {"BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path, tenants=table))}
    if source == "setting":
        settings["BUSYAPI_TENANT_RATE_LIMIT"] = str(RATE)
    stack = stacks(valkey)
    with run_apis(stack, tmp_path, 2, **settings) as apis:
        one, two = apis
        floods = [
            flood(one, ["north-1", "north-2"], 150),
            flood(two, ["north-2"], 30),
            flood(two, ["north-1"], 30),
        ]
        stored, elapsed = measure(valkey, floods)
        assert is_within_tenth(stored, elapsed, len(apis)), (stored, elapsed)
        answer = send_until_refused(one, "north-2")
        problem = check_problem(answer, 429)
        assert problem["detail"] == "The tenant of this device exceeds its rate limit."
        state = answer.headers["ratelimit"]
        assert re.fullmatch(r'"credential";r=\d+;t=\d+, "tenant";r=0;t=1', state), state
        assert send(one.port, USAGE, authorization="Bearer free").status == 201


def send_until_refused(api: Api, token: str, requests: int = 200) -> Answer:
    """Return the first 429."""
    for _ in range(requests):
        answer = send(api.port, USAGE, authorization=f"Bearer {token}")
        if answer.status == 429:
            return answer
    raise AssertionError("no request was refused")


@pytest.mark.parametrize("fast_path", ["on", "off"])
def test_limited_answers_say_how_much_is_left(
    stacks: Stacks, valkey: Server, tmp_path: Path, fast_path: str
) -> None:
    stack = stacks(valkey)
    settings = {
        "BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path)),
        "BUSYAPI_FAST_PATH": fast_path,
    }
    with run_apis(stack, tmp_path, 1, **settings) as (api,):
        credential = {"authorization": "Bearer limited"}
        answers = [send(api.port, USAGE, **credential) for _ in range(3)]
        usage = answers[0].headers["location"]
        answers += [
            send(api.port, USAGE, idempotency_key="a", **credential),
            send(api.port, [USAGE] * 2, BATCH, **credential),
            fetch(api.port, usage, headers=credential),
            fetch(api.port, "/api/usages/count", headers=credential),
        ]
        assert {answer.status for answer in answers} == {200, 201}
        answers.append(send_until_refused(api, "limited"))
        for answer in answers:
            assert answer.headers["ratelimit-policy"] == f'"credential";q={BURST};w=2;qu="usages"'
            state = re.fullmatch(r'"credential";r=(\d+);t=([0-3])', answer.headers["ratelimit"])
            assert state, answer.headers
            # Reads cost nothing, and on a slow machine everything may be there again.
            most = BURST if answer.status == 200 else BURST - 1
            assert 0 <= int(state[1]) <= most
        assert answer.headers["ratelimit"] == '"credential";r=0;t=1'
        assert answer.headers["retry-after"] == "1"


def test_headers_of_both_paths_have_the_same_form(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    tokens = {"BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path))}
    heads = []
    for switch in ("on", "off"):
        with run_apis(stack, tmp_path, 1, BUSYAPI_FAST_PATH=switch, **tokens) as (api,):
            with RawConnection(api.port) as device:
                for _ in range(4):
                    time.sleep(0.1)  # so that what the last one owes is paid
                    head = ("Authorization: Bearer limited", "X-Request-ID: a")
                    device.send(render_request("POST", "/api/usages", BODY, headers=head))
                    answer = device.read_answer()
            heads.append(list(answer.headers))
    assert heads[0] == heads[1]
    assert heads[0][-2:] == ["ratelimit-policy", "ratelimit"]


def test_a_refused_batch_is_not_decoded_again(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    tokens = {"BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path))}
    with run_apis(stack, tmp_path, 1, **tokens) as (api,):
        credential = {"authorization": "Bearer limited"}
        assert send(api.port, [USAGE] * 35, BATCH, **credential).status == 201
        # Less than half of a full bucket is left.
        answer = send(api.port, [USAGE] * 1000, BATCH, **credential)
        check_problem(answer, 429)
        assert answer.headers["retry-after"] in {"1", "2"}
        with RawConnection(api.port) as device:
            head = ("Content-Length: 4000000", "Authorization: Bearer limited")
            device.send(render_request("POST", BATCH, headers=head))
            check_problem(device.read_answer(), 429)
        # One usage is left for others.
        assert send(api.port, USAGE, **credential).status == 201


def wait_until_logged(api: Api, event: str, statuses: set[int]) -> None:
    """Post until the process logs an event; each answer has one of the statuses."""

    def has_logged() -> bool:
        assert send(api.port, USAGE, authorization="Bearer limited").status in statuses
        return event.encode() in api.log.read_bytes()

    wait_until(has_logged, event, seconds=20)


def test_after_a_restart_of_redis_the_rate_is_shared_again(
    stacks: Stacks, valkey: Server, tmp_path: Path
) -> None:
    stack = stacks(valkey)
    tokens = {"BUSYAPI_TOKENS_FILE": str(write_credentials(tmp_path))}
    with run_apis(stack, tmp_path, 2, **tokens) as apis:
        for api in apis:
            send_until_refused(api, "limited")
        valkey.kill9()
        # Reads and posts are limited by each process, and posts are not stored anyway.
        for api in apis:
            wait_until_logged(api, "rates_local", {429, 503})
        valkey.start()
        for api in apis:
            wait_until(api.is_ready, "the process to be ready")
            wait_until_logged(api, "rates_shared", {201, 429})
        stored, elapsed = measure(valkey, [flood(api, ["limited"], 60) for api in apis])
        assert 0.9 * RATE * elapsed <= stored <= BURST + RATE * elapsed + 2 * CREDIT
        assert all(api.read_metric("busyapi_rate_withdrawal_failures_total") for api in apis)

"""Limits of what one request costs an API process: CPU per byte, no stall of others, little memory.

Every attack is compared with a control in the same run: a batch of ordinary usages. The wait of
another client is measured in CPU that the process used between a request and its answer, because
that is the same on a busy machine.
"""

import gzip
import re
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from testkit.api_client import RawConnection, render_request
from testkit.attacks import AGAIN, ATTACKS, MAX_USAGE_BYTES, NESTED, USAGE, array, usage
from testkit.http1 import Answer
from testkit.ports import reserve_port
from testkit.processes import Api, Stack

pytestmark = pytest.mark.alone

SINGLE, BATCH = "/api/usages", "/api/usages/batch"
MAX_CPU_RATIO = 10.0
"""Allowed ratio of an attack's CPU per inflated byte to the control's."""
MAX_STALL_SECONDS = 0.05
MAX_REQUEST_MIB = 64
MAX_MIB = 400
MAX_ERROR_BYTES = 40_000
TRIES = 3
"""The best one counts: a client that is scheduled late also sees work done for others."""


PACKED = ["array of nested arrays", "one usage of nested arrays", "usages of []", "10,000 bad"]
"""These are also sent as gzip."""
SLOWEST = [name for name in ATTACKS if "read twice" in name and "lines" not in name]


class Cost(NamedTuple):
    """Cost of one request, for the process and for another client."""

    status: int
    size: int
    """Bytes of the answer."""
    seconds: float
    stall: float
    mib: float


class Watched:
    """An API process with its use of CPU and memory."""

    def __init__(self, api: Api) -> None:
        self.port = api.port
        self._proc = Path(f"/proc/{api.pid}")

    def cpu(self) -> float:
        """Return the seconds of CPU it has used."""
        tasks = (self._proc / "task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self, field: str) -> float:
        """Return a figure of its status, in MiB."""
        text = (self._proc / "status").read_text()
        match = re.search(rf"^{field}:\s+(\d+) kB$", text, re.MULTILINE)
        assert match
        return int(match[1]) / 1024

    def cost(self, message: bytes) -> Cost:
        """Send a request and return its cost."""
        self.forget_peak()
        memory_before, cpu_before = self.memory("VmRSS"), self.cpu()
        with self.another(render_request("GET", "/livez")) as stalls:
            answer = self.send(message)
        seconds, peak = self.cpu() - cpu_before, self.memory("VmHWM")
        return Cost(answer.status, len(answer.body), seconds, max(stalls), peak - memory_before)

    def send(self, message: bytes) -> Answer:
        """Send a request and wait for its answer."""
        with RawConnection(self.port, 60) as device:
            device.send(message)
            return device.read_answer()

    def forget_peak(self) -> None:
        """Reset the peak of its memory."""
        (self._proc / "clear_refs").write_text("5")

    @contextmanager
    def another(self, message: bytes) -> Iterator[list[float]]:
        """Send requests of another client meanwhile; yield the CPU used before each answer."""
        done = threading.Event()
        stalls: list[float] = []
        other = threading.Thread(target=self._ask, args=(message, done, stalls))
        other.start()
        try:
            yield stalls
        finally:
            done.set()
            other.join()

    def _ask(self, message: bytes, done: threading.Event, stalls: list[float]) -> None:
        with RawConnection(self.port, 60) as other:
            while not (done.is_set() and stalls):
                cpu_before = self.cpu()
                other.send(message)
                other.read_answer()
                stalls.append(self.cpu() - cpu_before)
                time.sleep(0.002)


@pytest.fixture(scope="module")
def watched(
    contracts: dict[str, Stack], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    stack = contracts["on"]
    port, folder = reserve_port(), tmp_path_factory.mktemp("bounds")
    with Api(folder, "api", port, stack.apis[0].environment or {}) as api:
        yield Watched(api)


def post(
    body: bytes, path: str = BATCH, *, packed: bool = False, kind: str = "application/json"
) -> bytes:
    headers = (f"Content-Type: {kind}", *(("Content-Encoding: gzip",) if packed else ()))
    return render_request("POST", path, gzip.compress(body) if packed else body, headers=headers)


def ordinary_seconds_per_byte(watched: Watched) -> float:
    """Return the CPU for a byte of ordinary usages, as the machine is now."""
    body = b"[" + b",".join(USAGE.replace(b"1", b"%d" % n, 1) for n in range(9_999)) + b"]"
    cost = watched.cost(post(body))
    assert cost.status == 201
    return cost.seconds / len(body)


@pytest.mark.parametrize(
    ("name", "packed"),
    [*((name, False) for name in ATTACKS), *((name, True) for name in PACKED)],
)
def test_a_batch_costs_what_its_bytes_cost(
    watched: Watched,
    name: str,
    packed: bool,  # noqa: FBT001
) -> None:
    body = ATTACKS[name]()
    kind = "application/x-ndjson" if name.startswith("lines") else "application/json"
    assert_within_bounds(watched, post(body, packed=packed, kind=kind), len(body))


SINGLES = {
    "[]": usage(b'"x":' + array(b"[]", MAX_USAGE_BYTES)),
    "nested arrays": usage(b'"x":' + array(NESTED, MAX_USAGE_BYTES)),
    "objects, read twice": usage(b'"x":%b,%b' % (array(b'{"":0},11,"aaaa"', 64_000), AGAIN)),
    "texts, read twice": usage(b'"x":%b,%b' % (array(b'"a"', 64_000), AGAIN)),
    "fractions, read twice": usage(b'"x":%b,%b' % (array(b"1.5", 64_000), AGAIN)),
    "fractions, as many as are kept": usage(
        b'"x":%b,"z":%b,"y":1e-300' % (array(b"1.5", 16_376), array(b"1", 48_000))
    ),
    "texts beside an escape": usage(
        b'"x":%b,"z":"\\ud83d\\ude00",%b' % (array(b'"a"', 64_000), AGAIN)
    ),
    "exponents": usage(b'"x":%b' % array(b"1e23", 19_000)),
    "large numbers, short": usage(b'"x":%b' % array(b"1e300", 8_000)),
    "20 digits": usage(b'"x":%b' % array(b"35543994774517951114e99", 64_000)),
    "numbers too large": usage(b'"x":' + array(b"1e400", MAX_USAGE_BYTES)),
    "large numbers": usage(b'"x":' + array(b"1e300", 65_000)),
    "4,300 digits": usage(b'"x":' + array(b"9" * 4_300, MAX_USAGE_BYTES)),
    "escaped quotes": b'{"' + b'\\"' * 32_000,
    "form": b"&".join(b"f%d=%%41%b" % (n, b"%C3%A9" * 9) for n in range(999)),
    "form of one field": b"f=" + b"%41" * 21_000,
    "form of signs": b"&=" * 32_000,
}


@pytest.mark.parametrize("name", SINGLES)
def test_a_usage_costs_what_its_bytes_cost(watched: Watched, name: str) -> None:
    kind = "application/x-www-form-urlencoded" if "form" in name else "application/json"
    body = SINGLES[name]
    assert_within_bounds(watched, post(body, SINGLE, kind=kind), len(body))


def assert_within_bounds(watched: Watched, message: bytes, size: int) -> None:
    """Assert the limits of a request whose inflated body has a size."""
    for _ in range(TRIES):
        # Beside the request, because a machine's speed may halve within a minute.
        ordinary = ordinary_seconds_per_byte(watched) * size
        cost = watched.cost(message)
        # Every request has a base cost, and so do the other client's requests.
        allowed = MAX_CPU_RATIO * ordinary + 0.02
        cheap = cost.seconds <= allowed and cost.mib <= MAX_REQUEST_MIB
        if cheap and cost.stall <= MAX_STALL_SECONDS:
            break
    else:
        pytest.fail(f"{cost} allowed {allowed:.3f} s")
    assert cost.status in {201, 400, 413, 422}
    assert cost.status == 201 or cost.size < MAX_ERROR_BYTES


def test_many_attackers_at_once_take_turns(watched: Watched) -> None:
    usual = post(USAGE, SINGLE)
    messages = [post(ATTACKS[name]()) for name in SLOWEST]
    watched.forget_peak()
    with watched.another(usual) as stalls, ThreadPoolExecutor(len(messages)) as attackers:
        answers = list(attackers.map(watched.send, messages))
    # On a busy machine the last one may wait too long for its turn.
    assert {201} <= {answer.status for answer in answers} <= {201, 503}
    assert watched.memory("VmHWM") < MAX_MIB
    assert statistics.median(stalls) <= MAX_STALL_SECONDS / 2

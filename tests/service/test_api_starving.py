"""While one client attacks a port, what others wait is held against a quiet time of the same run.

A busy machine is slow at any moment, so quiet and attacked times take turns, and the best of some
rounds counts: an attack that starves others does so in each of them.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from statistics import quantiles

import pytest

from testkit import mutants
from testkit.api_client import BODY, RawConnection, check_stored, render_request
from testkit.broken_build import broken_build
from testkit.flood import run_flood
from testkit.processes import Api
from tests.service.conftest import StartApi
from tests.service.test_api_bounds import ATTACKS as BATCHES
from tests.service.test_api_bounds import BATCH, PACKED, SINGLE, SINGLES, SLOWEST

pytestmark = pytest.mark.alone

TIMES = 3.0
ROUNDS = 6
ASKED = 150
ATTACKERS = 3
CONNECTIONS = 300
"""The bound of the attacked process."""

Attack = Callable[[Api, ExitStack], None]


@pytest.fixture(scope="module")
def attacked(start_api: StartApi, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """An API process with tokens and few connections."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("write good\n")
    return start_api(BUSYAPI_TOKENS_FILE=str(path), BUSYAPI_MAX_CONNECTIONS=str(CONNECTIONS))


def p99(api: Api, asked: int = ASKED) -> float:
    """Return what the slowest of a hundred posts waits, as another client sees it."""
    waits = []
    post = render_request("POST", "/api/usages", BODY, headers=("Authorization: Bearer good",))
    with RawConnection(api.port) as client:
        for _ in range(asked):
            began = time.monotonic()
            client.send(post)
            check_stored(client.read_answer())
            waits.append(time.monotonic() - began)
    return quantiles(waits, n=100)[98]


def opened(clients: ExitStack, port: int, count: int, begun: bytes) -> list[RawConnection]:
    """Open connections that send something and wait."""
    made = []
    for _ in range(count):
        with suppress(OSError):
            made.append(clients.enter_context(RawConnection(port)))
            made[-1].send(begun)
    return made


@contextmanager
def repeating(act: Callable[[], None], every: float) -> Iterator[None]:
    """Do something again and again beside the test."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            with suppress(OSError, EOFError):
                act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def silent_scrapers(api: Api, clients: ExitStack) -> None:
    opened(clients, api.scrape_port, 400, b"GET")


def slow_headers(api: Api, clients: ExitStack) -> None:
    opened(clients, api.port, CONNECTIONS - 50, render_request("POST", "/api/usages")[:-2])


def bodies(api: Api, clients: ExitStack) -> None:
    headers = ("Content-Length: 4194304", "Authorization: Bearer good")
    for each in opened(clients, api.port, 60, render_request("POST", BATCH, headers=headers)):
        with suppress(OSError):
            each.send(b" " * 4_000_000)


def connections(api: Api, clients: ExitStack) -> None:
    opened(clients, api.port, 2 * CONNECTIONS, b"")

    def one_more() -> None:
        with RawConnection(api.port) as client:
            client.send(render_request("GET", "/livez"))
            client.read_answer()

    clients.enter_context(repeating(one_more, 0.01))


def scrapes(api: Api, clients: ExitStack) -> None:
    scraper = clients.enter_context(RawConnection(api.scrape_port))

    def scrape() -> None:
        scraper.send(render_request("GET", "/metrics") * 4)
        for _ in range(4):
            scraper.read_answer()

    clients.enter_context(repeating(scrape, 0.005))


def wrong_tokens(api: Api, clients: ExitStack) -> None:
    guesser = clients.enter_context(RawConnection(api.port))
    guess = render_request("POST", BATCH, b" " * 100_000, headers=("Authorization: Bearer bad",))

    def ask() -> None:
        guesser.send(guess)
        guesser.read_answer()

    clients.enter_context(repeating(ask, 0.005))


def crafted_batches() -> list[bytes]:
    return [BATCHES[name]() for name in (*PACKED, *SLOWEST)]


def crafted(path: str, make_bodies: Callable[[], Iterable[bytes]], *, packed: bool) -> Attack:
    """Return an attack by a few connections that send crafted bodies one after the other."""
    headers = ["Authorization: Bearer good"] + ["Content-Encoding: gzip"] * packed

    @cache
    def messages() -> list[bytes]:
        return [
            render_request(
                "POST", path, gzip.compress(body) if packed else body, headers=tuple(headers)
            )
            for body in make_bodies()
        ]

    def attack(api: Api, clients: ExitStack) -> None:
        clients.enter_context(run_flood(api.port, messages(), ATTACKERS))

    return attack


ATTACKS: dict[str, Attack] = {
    "silent connections to the metrics": silent_scrapers,
    "slow headers": slow_headers,
    "bodies that stop": bodies,
    "more connections than the bound": connections,
    "scrapes without end": scrapes,
    "wrong tokens with bodies": wrong_tokens,
    "crafted batches": crafted(BATCH, crafted_batches, packed=False),
    "crafted batches in gzip": crafted(BATCH, crafted_batches, packed=True),
    "crafted usages": crafted(SINGLE, SINGLES.values, packed=False),
    "crafted usages in gzip": crafted(SINGLE, SINGLES.values, packed=True),
}


def ratios(api: Api, attack: Attack, asked: int = ASKED) -> Iterator[float]:
    """Give what others wait under the attack, against a quiet time just before."""
    for _ in range(ROUNDS):
        quiet = p99(api)
        with ExitStack() as clients:
            attack(api, clients)
            yield p99(api, asked) / quiet


@pytest.mark.parametrize("name", ATTACKS)
def test_others_are_not_starved(attacked: Api, name: str) -> None:
    seen = []
    for ratio in ratios(attacked, ATTACKS[name]):
        seen.append(ratio)
        if ratio <= TIMES:
            return
    pytest.fail(f"others wait {seen} times as long")


def test_an_attack_that_starves_would_be_seen(attacked: Api) -> None:
    """The process stands still now and then, ten times as long as anybody waits."""

    def stand_still(api: Api, clients: ExitStack) -> None:
        seconds = 10 * p99(api)

        def stop() -> None:
            api.pause()
            time.sleep(seconds)
            api.resume()

        clients.enter_context(repeating(stop, seconds / 10))

    assert min(next(ratios(attacked, stand_still)) for _ in range(2)) > TIMES


@pytest.mark.mutants
def test_crafted_batches_that_are_read_without_a_break_would_be_seen(
    start_api: StartApi, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("write good\n")
    api = start_api(BUSYAPI_TOKENS_FILE=str(tokens), **broken_build(mutants.read_without_a_break))
    # Each post waits for a whole batch.
    assert next(ratios(api, ATTACKS["crafted batches"], asked=10)) > TIMES


@pytest.mark.mutants
def test_bodies_that_are_all_read_in_one_turn_would_be_seen(
    start_api: StartApi, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("write good\n")
    api = start_api(BUSYAPI_TOKENS_FILE=str(tokens), **broken_build(mutants.read_all_in_one_turn))
    # The first posts wait for the bodies that have arrived.
    assert next(ratios(api, ATTACKS["bodies that stop"], asked=10)) > TIMES

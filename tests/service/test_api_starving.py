"""While one client attacks a port, other clients wait little longer than without the attack.

A busy machine may be slow at any moment, so quiet and attacked times alternate, and the best of
some rounds counts: an attack that starves other clients does so in every round.
"""

import gzip
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from statistics import quantiles
from typing import NamedTuple

import pytest

from testkit import mutants
from testkit.api_client import BODY, RawConnection, check_stored, render_request
from testkit.attacks import ATTACKS as BATCHES
from testkit.broken_build import broken_build
from testkit.flood import run_flood
from testkit.processes import Api
from tests.service.conftest import StartApi
from tests.service.test_api_bounds import BATCH, PACKED, SINGLE, SINGLES, SLOWEST

pytestmark = pytest.mark.alone

MAX_RATIO = 3.0
ROUNDS = 6
POSTS = 300
"""Fewer would let two waits of this process itself, whose threads also attack, be the p99."""
ATTACKERS = 3
CONNECTIONS = 300
"""The bound of the attacked process."""

Attack = Callable[[Api, ExitStack], None]


@pytest.fixture(scope="module")
def attacked_api(start_api: StartApi, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """An API process with tokens and few connections."""
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    path.write_text("write good\n")
    return start_api(BUSYAPI_TOKENS_FILE=str(path), BUSYAPI_MAX_CONNECTIONS=str(CONNECTIONS))


def measure_p99(api: Api, posts: int = POSTS) -> float:
    """Return the p99 latency of posts, as a client that does not attack sees it."""
    waits = []
    post = render_request("POST", "/api/usages", BODY, headers=("Authorization: Bearer good",))
    with RawConnection(api.port) as client:
        for _ in range(posts):
            began = time.monotonic()
            client.send(post)
            check_stored(client.read_answer())
            waits.append(time.monotonic() - began)
    return quantiles(waits, n=100)[98]


def open_connections(
    clients: ExitStack, port: int, count: int, start: bytes
) -> list[RawConnection]:
    """Open connections that send the start of a request and wait."""
    connections = []
    for _ in range(count):
        with suppress(OSError):
            connections.append(clients.enter_context(RawConnection(port)))
            connections[-1].send(start)
    return connections


@contextmanager
def repeat_in_background(action: Callable[[], None], every: float) -> Iterator[None]:
    """Repeat an action in a thread until the end of the `with`."""
    done = threading.Event()

    def run() -> None:
        while not done.wait(every):
            with suppress(OSError, EOFError):
                action()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def open_silent_scrapes(api: Api, clients: ExitStack) -> None:
    open_connections(clients, api.scrape_port, 400, b"GET")


def send_slow_headers(api: Api, clients: ExitStack) -> None:
    open_connections(
        clients, api.port, CONNECTIONS - 50, render_request("POST", "/api/usages")[:-2]
    )


def send_bodies_that_stop(api: Api, clients: ExitStack) -> None:
    headers = ("Content-Length: 4194304", "Authorization: Bearer good")
    for connection in open_connections(
        clients, api.port, 60, render_request("POST", BATCH, headers=headers)
    ):
        with suppress(OSError):
            connection.send(b" " * 4_000_000)


def open_too_many(api: Api, clients: ExitStack) -> None:
    open_connections(clients, api.port, 2 * CONNECTIONS, b"")

    def connect_once() -> None:
        with RawConnection(api.port) as client:
            client.send(render_request("GET", "/livez"))
            client.read_answer()

    clients.enter_context(repeat_in_background(connect_once, 0.01))


def scrape_repeatedly(api: Api, clients: ExitStack) -> None:
    scraper = clients.enter_context(RawConnection(api.scrape_port))

    def scrape() -> None:
        scraper.send(render_request("GET", "/metrics") * 4)
        for _ in range(4):
            scraper.read_answer()

    clients.enter_context(repeat_in_background(scrape, 0.005))


def guess_tokens(api: Api, clients: ExitStack) -> None:
    guesser = clients.enter_context(RawConnection(api.port))
    guess = render_request("POST", BATCH, b" " * 100_000, headers=("Authorization: Bearer bad",))

    def ask() -> None:
        guesser.send(guess)
        guesser.read_answer()

    clients.enter_context(repeat_in_background(ask, 0.005))


def make_crafted_batches() -> list[bytes]:
    return [BATCHES[name]() for name in (*PACKED, *SLOWEST)]


def make_flood_attack(
    path: str, make_bodies: Callable[[], Iterable[bytes]], *, packed: bool
) -> Attack:
    """Return an attack in which a few connections send crafted bodies one after the other."""
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
    "silent connections to the metrics": open_silent_scrapes,
    "slow headers": send_slow_headers,
    "bodies that stop": send_bodies_that_stop,
    "more connections than the bound": open_too_many,
    "endless scrapes": scrape_repeatedly,
    "wrong tokens with bodies": guess_tokens,
    "crafted batches": make_flood_attack(BATCH, make_crafted_batches, packed=False),
    "crafted batches in gzip": make_flood_attack(BATCH, make_crafted_batches, packed=True),
    "crafted usages": make_flood_attack(SINGLE, SINGLES.values, packed=False),
    "crafted usages in gzip": make_flood_attack(SINGLE, SINGLES.values, packed=True),
}


class Waits(NamedTuple):
    """Times of one round, in seconds."""

    quiet: float
    """The p99 just before the attack."""
    attacked: float
    """The p99 under the attack."""

    @property
    def is_allowed(self) -> bool:
        """Return whether others wait little longer."""
        return self.attacked <= MAX_RATIO * self.quiet


def measure_waits(api: Api, attack: Attack, posts: int = POSTS) -> Iterator[Waits]:
    """Yield the times of each round."""
    for _ in range(ROUNDS):
        quiet = measure_p99(api)
        with ExitStack() as clients:
            attack(api, clients)
            yield Waits(quiet, measure_p99(api, posts))


@pytest.mark.parametrize("name", ATTACKS)
def test_other_clients_are_not_starved(attacked_api: Api, name: str) -> None:
    rounds = []
    for waits in measure_waits(attacked_api, ATTACKS[name]):
        rounds.append(waits)
        if waits.is_allowed:
            return
    pytest.fail(f"with the attack, other clients wait too long: {rounds}")


def test_an_attack_that_starves_other_clients_is_found(attacked_api: Api) -> None:
    """The process pauses repeatedly, each time for ten times the p99."""

    def stop_repeatedly(api: Api, clients: ExitStack) -> None:
        seconds = 10 * measure_p99(api)

        def stop() -> None:
            api.pause()
            time.sleep(seconds)
            api.resume()

        clients.enter_context(repeat_in_background(stop, seconds / 10))

    assert not any(next(measure_waits(attacked_api, stop_repeatedly)).is_allowed for _ in range(2))


@pytest.mark.mutants
def test_crafted_batches_that_are_read_without_a_break_are_found(
    start_api: StartApi, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("write good\n")
    api = start_api(BUSYAPI_TOKENS_FILE=str(tokens), **broken_build(mutants.read_without_a_break))
    # Each post waits for a whole batch.
    assert not next(measure_waits(api, ATTACKS["crafted batches"], posts=10)).is_allowed

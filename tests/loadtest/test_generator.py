"""The open loop offers the rate it reports, and its figures are right for known delays."""

import statistics
from array import array
from itertools import pairwise

import pytest

from busyapi.decode.timestamp import is_timestamp
from loadtest.answers import parse
from loadtest.figures import compute_quantiles, summarise
from loadtest.generator import NOT_SENT, OK, REFUSED, UNKNOWN, Generator, plan_times
from loadtest.native import Native, compile_program
from loadtest.openloop import make_parser, run_generator
from perf.bodies import START, Mix, make_bodies, spell_time
from testkit.slow_server import Behave, SlowServer, render_answer, render_created

ENGINES = ["c", "python"]
PROGRAMS = {"c": compile_program(), "python": None}
REQUEST = b"POST /api/usages HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def run(
    behave: Behave,
    engine: str,
    *,
    rate: float,
    seconds: float,
    connections: int = 32,
    grace: float = 5,
) -> Generator | Native:
    with SlowServer(behave) as server:
        due = plan_times(rate, seconds, even=True)
        where = ("127.0.0.1", server.port, [REQUEST], due, connections)
        program = PROGRAMS[engine]
        generator = Native(*where, program=program) if program else Generator(*where)
        generator.run(grace)
    return generator


def test_arrivals_are_poisson_or_even() -> None:
    due = plan_times(1000, 50)
    gaps = [after - before for before, after in pairwise(due)]
    assert len(due) == 50_000
    assert statistics.mean(gaps) == pytest.approx(1e-3, rel=0.02)
    assert due[-1] < 50, "no request is due after the end"
    # The standard deviation of an exponential distribution is its mean; even gaps have 0.
    assert statistics.stdev(gaps) == pytest.approx(1e-3, rel=0.05)
    assert [*plan_times(4, 1, even=True)] == [0, 0.25, 0.5, 0.75]
    assert len(plan_times(0.1, 3)) == 1, "a warm-up may have less than one request"


def test_a_compiler_is_installed() -> None:
    # Without one, the engine "c" would be Python too.
    assert compile_program() is not None


@pytest.mark.parametrize("engine", ENGINES)
def test_all_planned_requests_are_sent(engine: str) -> None:
    with SlowServer(lambda number: (0, render_created(number))) as server:
        words = ["--connect", f"127.0.0.1:{server.port}", "--rate", "200", "--seconds", "2"]
        result = run_generator(
            make_parser().parse_args([*words, "--even", "--invalid", "0", "--engine", engine])
        )
    assert result["planned"] == result["created"] == 400
    assert [second["planned"] for second in result["series"][:2]] == [200, 200]
    assert result["statuses"] == {201: 400}
    assert result["elapsed"] >= 1.99
    assert (result["unexpected"], result["unknown"], result["duplicates"]) == (0, 0, 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_percentiles_of_known_delays(engine: str) -> None:
    # One of ten takes a second: the 95th percentile has this delay, the median does not.
    generator = run(
        lambda number: (1.0 if number % 10 == 0 else 0.02, render_created(number)),
        engine,
        rate=100,
        seconds=2,
    )
    latency = compute_quantiles(generator.latencies)
    # A run that is no longer than the skipped second is not skipped.
    generator.due = array("d", [0.5] * len(generator.due))
    assert summarise(generator, [True])["latency"]["p50"] == latency.p50
    assert 20 <= latency.p50 < 1000 <= latency.p95 <= latency.p99 <= latency.max


@pytest.mark.parametrize("engine", ENGINES)
def test_a_stall_is_in_every_latency_that_it_delayed(engine: str) -> None:
    # One connection, 100 a second. The 20th answer takes half a second, and 50 requests wait.
    generator = run(
        lambda number: (0.5 if number == 20 else 0, render_created(number)),
        engine,
        rate=100,
        seconds=1,
        connections=1,
    )
    assert sum(latency > 0.1 for latency in generator.latencies) >= 35
    assert set(generator.outcomes) == {OK}


@pytest.mark.parametrize("engine", ENGINES)
def test_each_answer_has_its_outcome(engine: str) -> None:
    replies = {
        1: render_created(1),
        2: render_answer(422, b"{}"),
        3: render_answer(503, b'{"stored":"no"}'),
        4: render_answer(503, b'{"stored":"unknown"}'),
        5: render_answer(502, b"Bad Gateway"),
        6: b"",
        7: render_created(1),
    }
    generator = run(
        lambda number: (0, replies[number]), engine, rate=50, seconds=0.14, connections=1
    )
    assert [*generator.outcomes] == [OK, REFUSED, REFUSED, UNKNOWN, UNKNOWN, UNKNOWN, OK]
    assert [*generator.statuses] == [201, 422, 503, 503, 502, 0, 201]
    assert generator.reopened == 1
    summary = summarise(generator, [True, False, True, True, True, True, True])
    assert (summary["created"], summary["refused"], summary["unknown"]) == (2, 2, 3)
    assert summary["unexpected"] == 1, "the third was valid and refused"
    assert summary["duplicates"] == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_request_that_was_not_sent_is_distinguished_from_an_unanswered_one(engine: str) -> None:
    generator = run(lambda _: (60, b""), engine, rate=50, seconds=0.06, connections=1, grace=0.2)
    assert [*generator.outcomes] == [UNKNOWN, NOT_SENT, NOT_SENT]


def test_an_answer_in_pieces_and_one_without_a_length() -> None:
    whole = render_created(12)
    assert all(parse(whole[:size]) is None for size in range(len(whole)))
    reply = parse(whole)
    assert reply is not None
    assert (reply.status, reply.id) == (201, 12)
    with pytest.raises(ValueError, match="without a length"):
        parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


def test_bodies_are_of_many_patients_and_some_are_invalid() -> None:
    sent = make_bodies(Mix(devices=50, invalid=0.1), 5000)
    assert make_bodies(Mix(devices=50, invalid=0.1), 5000) == sent
    assert 350 < sum(not valid for _, valid in sent) < 650
    assert len({text for text, valid in sent if valid}) > 4000


def test_the_service_accepts_every_spelling_of_a_time() -> None:
    assert all(is_timestamp(text) for text in spell_time(START))

"""The checker catches builds that lose or repeat usages; the real build passes the same trial."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from testkit import mutants
from testkit.archive.command import run_busyapi
from testkit.broken_build import Mutant, broken_build
from testkit.checker import Defect, Verdict
from testkit.history import History
from testkit.load import Load
from testkit.processes import Flusher, Stack
from testkit.proxy import Proxy
from testkit.servers import Server
from testkit.stamping import configure_stamps
from testkit.waiting import wait_until

ACCEPT = re.compile(r"busyapi (archive accept-loss .*) --reason")

THE_COMMIT = b":lane:"
"""Part of a key that only the commit of a batch names."""


def wait_until_flushed(flusher: Flusher) -> None:
    """Wait until all ids issued so far are archived."""
    seq = flusher.read_metric("busyapi_issued_seq")
    wait_until(lambda: flusher.read_metric("busyapi_archived_seq") > seq, "a flush")


def run_trial(folder: Path, server: Server, build: dict[str, str]) -> Verdict:
    """Post while answers are lost, through more than one flush."""
    with ExitStack() as running:
        proxy = running.enter_context(Proxy(server.port))
        stack = Stack(folder / "stack", server, settings=build)
        (api,), (flusher,) = stack.apis, stack.flushers
        api.environment["BUSYAPI_REDIS_URL"] = proxy.url
        running.enter_context(stack)
        with Load(stack.port, connections=4) as load:
            for _ in range(2):
                proxy.lose_answer(THE_COMMIT)
                proxy.wait_until_lost()
                wait_until_flushed(flusher)
        stack.wait_until_archived()
        stack.stop()
        return stack.check_history(load.history)


@pytest.mark.mutants
@pytest.mark.parametrize(
    ("broken", "defects"),
    [
        ((), set()),
        ((mutants.store_retries_again,), {Defect.ARCHIVED_TWICE}),
        (
            (mutants.refuse_after_lost_replies, mutants.skip_writes),
            {Defect.REFUSED_PRESENT, Defect.MISSING},
        ),
    ],
    ids=["sound", "retries", "lies and losses"],
)
def test_trial_finds_what_is_broken(
    tmp_path: Path,
    valkey: Server,
    broken: tuple[Mutant, ...],
    defects: set[Defect],
) -> None:
    build = broken_build(*broken) if broken else {}
    verdict = run_trial(tmp_path, valkey, build)
    assert set(verdict.defects) == defects, verdict


@pytest.mark.mutants
@pytest.mark.parametrize(
    ("broken", "defects"),
    [((), set()), ((mutants.give_all_one_stamp,), {Defect.WRONG_WRITER})],
    ids=["sound", "one stamp for all"],
)
def test_usage_with_the_stamp_of_another_writer_is_found(
    tmp_path: Path, valkey: Server, broken: tuple[Mutant, ...], defects: set[Defect]
) -> None:
    build = broken_build(*broken) if broken else {}
    stack = Stack(tmp_path / "stack", valkey, settings=build)
    clients = configure_stamps(stack, tmp_path, ["one", "two"])
    history, loads = History(), list[Load]()
    with stack, ExitStack() as running:
        for client in clients:
            load = Load(
                stack.port,
                connections=8,
                requests=200,
                history=history,
                token=client.token,
                writer=client.writer,
            )
            running.enter_context(load)
            loads.append(load)
        for load in loads:
            load.finish()
        stack.wait_until_archived()
        stack.stop()
        verdict = stack.check_history(history)
    assert set(verdict.defects) == defects, verdict


@pytest.mark.mutants
def test_flusher_that_publishes_before_it_writes_is_caught(tmp_path: Path, valkey: Server) -> None:
    build = broken_build(mutants.publish_before_writing)
    with Stack(tmp_path / "stack", valkey, settings=build) as stack:
        (flusher,) = stack.flushers
        with Load(stack.port, connections=4) as load:
            flusher.kill9()
            flusher.environment["BUSYAPI_FAILPOINTS"] = "published=kill@2"
            flusher.spawn()
            assert flusher.wait(20) == -9
            del flusher.environment["BUSYAPI_FAILPOINTS"]
        # The next flusher finds that usages are missing, and waits for an operator.
        flusher.spawn()
        commands = wait_until(
            lambda: ACCEPT.findall(flusher.tail()), "the flusher to halt", seconds=30
        )
        assert run_busyapi(stack.archive, *commands[0].split(), "--reason", "a test", "--yes") == 0
        flusher.wait_until_ready()
        stack.wait_until_archived()
    verdict = stack.check_history(load.history)
    assert set(verdict.defects) == {Defect.MISSING}, verdict

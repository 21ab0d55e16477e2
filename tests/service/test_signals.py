"""SIGTERM and SIGINT: the first one stops a process in order, whatever signal follows."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from testkit.processes import Process, Stack
from testkit.servers import Server
from tests.conftest import Stacks

GAPS = (0, 0.001, 0.2)
"""Seconds between two signals: before Sanic stops, while it stops, and while it waits."""


def get_api(stack: Stack) -> Process:
    return stack.apis[0]


def get_flusher(stack: Stack) -> Process:
    return stack.flushers[0]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("get_process", [get_api, get_flusher])
def test_a_second_signal_does_not_cut_the_stop_short(
    get_process: Callable[[Stack], Process], second: signal.Signals, valkey: Server, stacks: Stacks
) -> None:
    process = get_process(stacks(valkey, settings={"BUSYAPI_DRAIN_DELAY": "0.5"}))
    for gap in GAPS:
        process.terminate()
        time.sleep(gap)
        os.kill(process.pid, second)
        assert process.wait(20) == 0
        process.start()
    assert process.log.read_text().count("_stopped") == len(GAPS)

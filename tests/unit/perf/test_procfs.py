import os

import pytest

from perf.procfs import (
    cpu_seconds,
    machine_seconds,
    parse_cpu,
    parse_machine,
    parse_resident,
    parse_waiting,
    resident_bytes,
    waiting_seconds,
)


def test_cpu_time_is_that_of_the_process_and_its_ended_children() -> None:
    fields = ["S", *["0"] * 10, "100", "20", "3", "4", *["9"] * 30]
    assert parse_cpu(f"12 (a) b) {' '.join(fields)}", ticks=100) == 1.27


def test_resident_memory_is_in_bytes() -> None:
    assert parse_resident("Name:\tx\nVmHWM:\t 99 kB\nVmRSS:\t  2048 kB\n") == 2 << 20


def test_a_process_that_has_ended_has_no_memory() -> None:
    with pytest.raises(ValueError, match="ended"):
        parse_resident("Name:\tx\nState:\tZ (zombie)\n")


def test_the_own_process_has_both() -> None:
    assert resident_bytes(os.getpid()) > 1 << 20
    assert cpu_seconds(os.getpid()) > 0


def test_the_wait_for_a_core_is_the_second_number_in_nanoseconds() -> None:
    assert parse_waiting("7000000000 1500000000 42\n") == 1.5
    assert waiting_seconds(os.getpid()) > 0


def test_the_time_of_the_machine_is_without_idle_and_iowait_and_steal_is_apart() -> None:
    stat = "cpu  100 20 30 4000 500 6 7 80 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n"
    assert parse_machine(stat, ticks=100) == (1.63, 0.8)
    busy, stolen = machine_seconds()
    assert busy > cpu_seconds(os.getpid())
    assert stolen >= 0

import os

import pytest

from perf.procfs import cpu_seconds, parse_cpu, parse_resident, resident_bytes


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

"""The arithmetic of `busyapi sizing`, and that what it prints can be installed."""

from pathlib import Path

import pytest
import yaml

from busyapi.cli import main
from busyapi.sizing import BATCHED, BUSY, FEWEST_PODS, SINGLE, Plan, plan, render

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "charts/busyapi/values.yaml").read_text())
MILLION = 1_000_000


def planned(
    per_minute: int = MILLION, *, batched: bool = False, partitions: int | None = None
) -> Plan:
    return plan(per_minute, batched=batched, outage_minutes=15, days=30, partitions=partitions)


def test_a_small_rate_still_gets_two_pods_and_one_partition() -> None:
    found = plan(60, batched=False, outage_minutes=1, days=1, partitions=None)
    assert (found.pods, found.partitions, found.bound) == (FEWEST_PODS, 1, 60)


@pytest.mark.parametrize("per_minute", [MILLION, 10 * MILLION, 100 * MILLION])
def test_no_process_is_planned_for_more_than_its_core(per_minute: int) -> None:
    found = planned(per_minute)
    rate = per_minute / 60
    assert rate / found.pods * SINGLE.api_us / 1e6 <= BUSY
    assert found.redis_cores <= BUSY
    assert found.flusher_cores <= BUSY


def test_the_outage_asked_for_fits_into_bound_and_memory() -> None:
    found = plan(MILLION, batched=True, outage_minutes=20, days=1, partitions=2)
    assert found.bound * 2 == 20 * MILLION
    assert found.redis_gib * 2**30 > found.bound * BATCHED.redis_bytes


def test_batches_need_fewer_pods() -> None:
    assert planned(10 * MILLION, batched=True).pods < planned(10 * MILLION).pods


def test_every_value_that_is_printed_is_one_of_the_chart() -> None:
    for found in planned(partitions=1), planned(partitions=4):
        lines = render(found).partition("values of the chart:\n")[2].splitlines()
        assert len(lines) == 5
        for line in lines:
            value = VALUES
            for key in line.strip().partition(":")[0].split("."):
                value = value[key]


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--per-minute", "2000000", "--batched"]) == 0
    assert "API pods of one core" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["0", "-1", "many"])
def test_a_rate_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sizing", f"--per-minute={wrong}"])
    assert "a whole number from 1" in capsys.readouterr().err

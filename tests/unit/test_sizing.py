"""The arithmetic of `busyapi sizing`, and that what it prints can be installed."""

from pathlib import Path

import pytest
import yaml

from busyapi.cli import main
from busyapi.sizing import command
from busyapi.sizing.command import render_plan
from busyapi.sizing.costs import (
    BATCHED_POST_COST,
    REDIS_KEY_BYTES,
    SINGLE_POST_COST,
    VALKEY_KEY_BYTES,
)
from busyapi.sizing.plan import GIB, MIN_PODS, TARGET_UTILIZATION, PlanRequest, make_plan
from busyapi.stream.keys import IDEMPOTENCY_HASHES, PartitionKeys
from testkit.servers import FLAVOURS, Flavour, Server

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "charts/busyapi/values.yaml").read_text())
MILLION = 1_000_000


@pytest.mark.parametrize("per_minute", [1, 1000])
def test_nothing_is_smaller_than_the_chart_has_it(per_minute: int) -> None:
    found = make_plan(PlanRequest(per_minute, outage_minutes=1, retention_days=1))
    assert (found.pods, found.partitions) == (MIN_PODS, 1)
    assert found.bound == VALUES["config"]["bound"]
    valkey = VALUES["valkey"]
    for gib, least in (
        (found.redis_gib, valkey["resources"]["limits"]["memory"]),
        (found.log_gib, valkey["persistence"]["size"]),
        (found.volume_gib, VALUES["flusher"]["persistence"]["size"]),
    ):
        assert f"{gib}Gi" == least
    assert VALUES["autoscaling"]["maxReplicas"] == command.MIN_MAX_REPLICAS
    assert VALUES["config"]["idempotencyTtl"] == PlanRequest(1).key_seconds


@pytest.mark.parametrize("per_minute", [MILLION, 10 * MILLION, 100 * MILLION])
def test_no_process_is_planned_for_more_than_its_core(per_minute: int) -> None:
    found = make_plan(PlanRequest(per_minute))
    rate = per_minute / 60
    assert rate / found.pods * SINGLE_POST_COST.api_us / 1e6 <= TARGET_UTILIZATION
    assert found.redis_cores <= TARGET_UTILIZATION
    assert found.flusher_cores <= TARGET_UTILIZATION


def test_the_outage_asked_for_fits_into_bound_and_memory() -> None:
    found = make_plan(PlanRequest(MILLION, is_batched=True, outage_minutes=20, partitions=2))
    assert found.bound * 2 == 20 * MILLION
    assert found.redis_gib * GIB > found.bound * BATCHED_POST_COST.redis_bytes


def test_a_log_and_its_rewrite_fit_into_the_volume() -> None:
    found = make_plan(PlanRequest(10 * MILLION, is_batched=True))
    assert found.log_gib * GIB > found.bound * (
        BATCHED_POST_COST.log_bytes + BATCHED_POST_COST.redis_bytes
    )
    longer = make_plan(PlanRequest(MILLION, outage_minutes=60))
    assert longer.log_gib > make_plan(PlanRequest(MILLION)).log_gib > 8


def test_keys_take_memory_and_log_as_long_as_they_are_known() -> None:
    bare, keyed = (
        make_plan(PlanRequest(MILLION)),
        make_plan(PlanRequest(MILLION, keyed_percent=100)),
    )
    assert (bare.keys, keyed.keys) == (0, 80 * MILLION)
    assert (keyed.redis_gib - bare.redis_gib) * GIB >= keyed.keys * VALKEY_KEY_BYTES
    assert keyed.log_gib > 2 * bare.log_gib
    assert make_plan(PlanRequest(MILLION, keyed_percent=100, key_seconds=60)).keys == 1_333_334
    assert make_plan(PlanRequest(MILLION, keyed_percent=100, is_batched=True)).keys == 80_000


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_key_weighs_no_more_than_is_planned(flavour: Flavour, tmp_path: Path) -> None:
    count = 20_000
    planned = {"valkey": VALKEY_KEY_BYTES, "redis": REDIS_KEY_BYTES}[flavour]
    with Server(tmp_path, flavour, config=["appendfsync no"]) as server:
        client = server.client()
        empty = client.info("memory")["used_memory"]
        with client.pipeline(transaction=False) as pipeline:
            for each in range(count):
                name = PartitionKeys(0).idempotency_hashes[each % IDEMPOTENCY_HASHES]
                pipeline.hset(name, f"{each:032x}", f"{each:032x} {MILLION} {2**31:x}{each:x}")
            pipeline.execute()
        used = (client.info("memory")["used_memory"] - empty) / count
    assert planned / 2 < used <= planned


def test_batches_need_fewer_pods() -> None:
    assert (
        make_plan(PlanRequest(10 * MILLION, is_batched=True)).pods
        < make_plan(PlanRequest(10 * MILLION)).pods
    )


def test_a_bound_that_no_partition_may_have_takes_more_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = make_plan(PlanRequest(MILLION, outage_minutes=2500))
    assert (found.partitions, found.bound) == (3, 833_333_334)
    assert main(["sizing", "--outage-minutes", "2500", "--partitions", "2"]) == 2
    assert "set --partitions to 3 or more" in capsys.readouterr().err


def test_every_value_that_is_printed_is_one_of_the_chart() -> None:
    for partitions, count in ((1, 7), (4, 6)):
        found = make_plan(PlanRequest(MILLION, partitions=partitions))
        lines = render_plan(found, found).partition("values of the chart:\n")[2].splitlines()
        assert len(lines) == count
        for line in lines:
            value = VALUES
            for key in line.strip().partition(":")[0].split("."):
                value = value[key]


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--per-minute", "2000000", "--batched"]) == 0
    assert "API pods of one core" in capsys.readouterr().out


def test_the_command_counts_keys_for_the_time_they_are_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sizing"]) == 0
    told = capsys.readouterr().out
    assert "with 0 Idempotency-Keys" in told
    assert "22,698 MiB if every post has a key" in told
    monkeypatch.setenv("BUSYAPI_IDEMPOTENCY_TTL", "60")
    assert main(["sizing", "--keyed", "50"]) == 0
    assert "with 666,667 Idempotency-Keys" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", ["-1", "101", "all"])
def test_a_share_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sizing", f"--keyed={wrong}"])
    assert "a whole number from 0 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["0", "-1", "many", "1000000001", "9" * 5000])
def test_a_rate_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sizing", f"--per-minute={wrong}"])
    assert "a whole number from 1" in capsys.readouterr().err

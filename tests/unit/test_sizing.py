"""The arithmetic of `busyapi sizing`, and its output as values of the chart."""

from pathlib import Path

import pytest
import yaml

from busyapi.cli import main
from busyapi.sizing import command
from busyapi.sizing.command import render_plan
from busyapi.sizing.costs import (
    BATCHED_POST_COST,
    BYTE_COST,
    REDIS_KEY_BYTES,
    SINGLE_POST_COST,
    VALKEY_KEY_BYTES,
)
from busyapi.sizing.plan import (
    GIB,
    MIN_PODS,
    POD_GIB,
    TARGET_UTILIZATION,
    PlanRequest,
    make_plan,
    plan_node_room,
)
from busyapi.stream.keys import IDEMPOTENCY_HASHES, PartitionKeys
from testkit.servers import FLAVOURS, Flavour, Server

ROOT = Path(__file__).parents[2]
VALUES = yaml.safe_load((ROOT / "charts/busyapi/values.yaml").read_text())
MILLION = 1_000_000


@pytest.mark.parametrize("per_minute", [1, 1000])
def test_no_value_is_smaller_than_in_the_chart(per_minute: int) -> None:
    plan = make_plan(PlanRequest(per_minute, outage_minutes=1, retention_days=1))
    assert (plan.pods, plan.partitions) == (MIN_PODS, 1)
    assert plan.bound == VALUES["config"]["bound"]
    valkey = VALUES["valkey"]
    for gib, default in (
        (plan.redis_gib, valkey["resources"]["limits"]["memory"]),
        (plan.aof_gib, valkey["persistence"]["size"]),
        (plan.volume_gib, VALUES["flusher"]["persistence"]["size"]),
    ):
        assert f"{gib}Gi" == default
    assert VALUES["autoscaling"]["maxReplicas"] == command.MIN_MAX_REPLICAS
    assert VALUES["config"]["idempotencyTtl"] == PlanRequest(1).key_seconds


@pytest.mark.parametrize("per_minute", [MILLION, 10 * MILLION, 100 * MILLION])
def test_no_process_is_planned_for_more_than_its_core(per_minute: int) -> None:
    plan = make_plan(PlanRequest(per_minute))
    rate = per_minute / 60
    assert rate / plan.pods * SINGLE_POST_COST.api_us / 1e6 <= TARGET_UTILIZATION
    assert plan.redis_cores <= TARGET_UTILIZATION
    assert plan.flusher_cores <= TARGET_UTILIZATION


def test_the_requested_outage_fits_into_bound_and_memory() -> None:
    plan = make_plan(PlanRequest(MILLION, is_batched=True, outage_minutes=20, partitions=2))
    assert plan.bound * 2 == 20 * MILLION
    assert plan.redis_gib * GIB > plan.bound * BATCHED_POST_COST.redis_bytes


def test_a_log_and_its_rewrite_fit_into_the_volume() -> None:
    plan = make_plan(PlanRequest(10 * MILLION, is_batched=True))
    assert plan.aof_gib * GIB > plan.bound * (
        BATCHED_POST_COST.aof_bytes + BATCHED_POST_COST.redis_bytes
    )
    longer_plan = make_plan(PlanRequest(MILLION, outage_minutes=60))
    assert longer_plan.aof_gib > make_plan(PlanRequest(MILLION)).aof_gib > 8


def test_keys_need_memory_and_log_while_they_are_kept() -> None:
    bare, keyed = (
        make_plan(PlanRequest(MILLION)),
        make_plan(PlanRequest(MILLION, keyed_percent=100)),
    )
    assert (bare.keys, keyed.keys) == (0, 80 * MILLION)
    assert (keyed.redis_gib - bare.redis_gib) * GIB >= keyed.keys * VALKEY_KEY_BYTES
    assert keyed.aof_gib > 2 * bare.aof_gib
    assert make_plan(PlanRequest(MILLION, keyed_percent=100, key_seconds=60)).keys == 1_333_334
    assert make_plan(PlanRequest(MILLION, keyed_percent=100, is_batched=True)).keys == 80_000


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_key_needs_no_more_memory_than_planned(flavour: Flavour, tmp_path: Path) -> None:
    count = 20_000
    planned = {"valkey": VALKEY_KEY_BYTES, "redis": REDIS_KEY_BYTES}[flavour]
    with Server(tmp_path, flavour, config=["appendfsync no"]) as server:
        client = server.client()
        empty = client.info("memory")["used_memory"]
        with client.pipeline(transaction=False) as pipeline:
            for number in range(count):
                name = PartitionKeys(0).idempotency_hashes[number % IDEMPOTENCY_HASHES]
                pipeline.hset(
                    name, f"{number:032x}", f"{number:032x} {MILLION} {2**31:x}{number:x}"
                )
            pipeline.execute()
        used = (client.info("memory")["used_memory"] - empty) / count
    assert planned / 2 < used <= planned


@pytest.mark.parametrize("is_batched", [False, True])
def test_longer_usages_need_more_of_everything(is_batched: bool) -> None:  # noqa: FBT001
    request = PlanRequest(10 * MILLION, is_batched=is_batched, partitions=8)
    bare, longer = make_plan(request), make_plan(request._replace(body_bytes=1100))
    assert longer.pods > bare.pods
    assert longer.redis_cores > bare.redis_cores
    assert longer.flusher_cores > bare.flusher_cores
    further = 1000 * bare.bound / GIB
    assert longer.redis_gib - bare.redis_gib > further
    assert longer.aof_gib - bare.aof_gib > 2 * further
    assert longer.disk_gib_per_day > 10 * bare.disk_gib_per_day
    assert make_plan(request._replace(body_bytes=1)) == bare


def test_longer_usage_weighs_no_more_than_is_planned(tmp_path: Path) -> None:
    count, further = 2000, 1000
    with Server(tmp_path, config=["appendfsync no"]) as server:
        client = server.client()
        used = []
        for size in (100, 100 + further):
            before = client.info("memory")["used_memory"]
            with client.pipeline(transaction=False) as pipeline:
                for _ in range(count):
                    pipeline.xadd(f"stream-{size}", {"1": "x" * size})
                pipeline.execute()
            used.append((client.info("memory")["used_memory"] - before) / count)
    assert further / 2 < used[1] - used[0] <= 1.1 * further * BYTE_COST.redis_bytes


def test_batches_need_fewer_pods() -> None:
    assert (
        make_plan(PlanRequest(10 * MILLION, is_batched=True)).pods
        < make_plan(PlanRequest(10 * MILLION)).pods
    )


def test_a_bound_above_the_maximum_needs_more_partitions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = make_plan(PlanRequest(MILLION, outage_minutes=2500))
    assert (plan.partitions, plan.bound) == (3, 833_333_334)
    assert main(["sizing", "--outage-minutes", "2500", "--partitions", "2"]) == 2
    assert "set --partitions to 3 or more" in capsys.readouterr().err


def test_servers_are_equal_and_each_has_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    one, three = (make_plan(PlanRequest(MILLION, servers=servers)) for servers in (1, 3))
    assert three.redis_cores > one.redis_cores
    assert (three.redis_gib, three.aof_gib) == (one.redis_gib, one.aof_gib)
    assert plan_node_room(three, 4).memory_gib > plan_node_room(one, 4).memory_gib
    assert "valkey.replicas: 3" in render_plan(three, three, 3)
    assert main(["sizing", "--servers", "5"]) == 2
    assert "set --nodes to 5 or more" in capsys.readouterr().err
    assert main(["sizing", "--servers", "5", "--partitions", "4"]) == 0
    printed = capsys.readouterr().out
    assert "20 in all" in printed
    assert "a primary with 4 replicas for each partition" in printed


def test_every_printed_value_exists_in_the_chart() -> None:
    for partitions, servers, count in ((1, 1, 7), (1, 3, 8), (4, 1, 6), (4, 3, 7)):
        plan = make_plan(PlanRequest(MILLION, partitions=partitions, servers=servers))
        lines = render_plan(plan, plan, 3).partition("values of the chart:\n")[2].splitlines()
        assert len(lines) == count
        for line in lines:
            value = VALUES
            for key in line.strip().partition(":")[0].split("."):
                value = value[key]


def test_the_command_prints_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--per-minute", "2000000", "--batched"]) == 0
    assert "API pods of one core" in capsys.readouterr().out


def test_the_command_counts_keys_for_the_time_they_are_kept(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["sizing"]) == 0
    output = capsys.readouterr().out
    assert "with 0 Idempotency-Keys" in output
    assert "22,698 MiB if every post has a key" in output
    monkeypatch.setenv("BUSYAPI_IDEMPOTENCY_TTL", "60")
    assert main(["sizing", "--keyed", "50"]) == 0
    assert "with 666,667 Idempotency-Keys" in capsys.readouterr().out


def test_the_command_takes_the_size_of_a_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing"]) == 0
    usual = capsys.readouterr().out
    assert main(["sizing", "--body-bytes", "100"]) == 0
    assert capsys.readouterr().out == usual
    assert main(["sizing", "--body-bytes", "2000"]) == 0
    assert "archive, all partitions     1," in capsys.readouterr().out
    for wrong in ("0", "-1", "1k"):
        with pytest.raises(SystemExit):
            main(["sizing", f"--body-bytes={wrong}"])
        assert "--body-bytes" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-1", "101", "all"])
def test_an_invalid_share_is_refused(share: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sizing", f"--keyed={share}"])
    assert "a whole number from 0 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["0", "-1", "many", "1000000001", "9" * 5000])
def test_an_invalid_rate_is_refused(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["sizing", f"--per-minute={rate}"])
    assert "a whole number from 1" in capsys.readouterr().err


@pytest.mark.parametrize("per_minute", [1000, MILLION, 100 * MILLION])
@pytest.mark.parametrize("nodes", [2, 3, 10])
def test_pods_fit_when_one_node_is_lost(per_minute: int, nodes: int) -> None:
    plan = make_plan(PlanRequest(per_minute))
    room = plan_node_room(plan, nodes)
    pods = plan.pods + plan.partitions
    assert room.memory_gib * (nodes - 1) >= pods * POD_GIB
    assert room.cores * (nodes - 1) >= plan.pods + plan.partitions * plan.flusher_cores
    if plan.partitions == 1:
        assert room.memory_gib >= plan.redis_gib, "Valkey is one pod"


def test_command_prints_the_room_on_a_node(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--nodes", "4"]) == 0
    assert "room on each of 4 nodes  " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["sizing", "--nodes", "1"])

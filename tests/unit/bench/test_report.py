import json
from pathlib import Path

import pytest

from bench import goals
from bench.markdown import render
from bench.outcome import Outcome
from bench.plot import plot
from bench.report import Report
from perf.machine import Machine
from perf.reconcile import find_disagreements
from tests.unit.bench.conftest import make_run
from tests.unit.perf.conftest import make_counts

MACHINE = Machine(2, "Fast 9000", 24.0, "Linux 6", "ext4", 0.1)


def make_durable(*rates: float, lag: float = 0.5) -> Outcome:
    return Outcome(
        "durable", 1, ["api"], [make_run(rate, lag=lag) for rate in rates], make_counts()
    )


def make_noop(*rates: float) -> Outcome:
    return Outcome("no-op", 1, ["noop"], [make_run(rate) for rate in rates])


def make_report(**scenarios: list[Outcome]) -> Report:
    return Report(MACHINE, {"rounds": 3}, scenarios, [])


def test_a_report_without_disagreement_has_no_failure() -> None:
    assert not make_report(posts=[make_durable(1, 2, 3), make_noop(1, 2, 3)]).failures


def test_missed_goals_are_no_failure() -> None:
    result = make_report(process=[make_durable(10, 10, 10, lag=9), make_noop(100, 100, 100)])
    assert [goal.met for goal in result.goals] == [False, False, False]
    assert not result.failures


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (goals.judge_posts(30_000), True),
        (goals.judge_posts(29_999), False),
        (goals.judge_ratio_to_noop(0.95), True),
        (goals.judge_ratio_to_noop(0.949), False),
        (goals.judge_batches(200_000), True),
        (goals.judge_batches(199_999), False),
        (goals.judge_whole_machine(100_000), True),
        (goals.judge_whole_machine(99_999), False),
        (goals.judge_batches_on_fast_machine(800_000), True),
        (goals.judge_batches_on_fast_machine(799_999), False),
        (goals.judge_flusher(1_000_000), True),
        (goals.judge_flusher(999_999), False),
        (goals.judge_lag(2.0), True),
        (goals.judge_lag(2.01), False),
    ],
)
def test_a_goal_is_met_at_its_threshold(goal: goals.Goal, met: bool) -> None:  # noqa: FBT001
    assert goal.met is met


def test_only_goals_of_the_scenarios_that_ran_are_judged() -> None:
    actual = make_report(batches=[make_durable(1, 2, 3)]).goals
    expected = (
        goals.judge_batches(0),
        goals.judge_batches_on_fast_machine(0),
        goals.judge_flusher(0),
        goals.judge_lag(0),
    )
    assert [goal.what for goal in actual] == [goal.what for goal in expected]


def judge(**scenarios: list[Outcome]) -> dict[str, bool]:
    """Return which goals of a report are met."""
    return {goal.what: goal.met for goal in make_report(**scenarios).goals}


def test_each_reference_has_its_own_goal() -> None:
    rates = {"fast": 80, "plain": 26, "aiohttp": 20, "webdis": 51, "nginx": 100}
    cpu = {"fast": 12, "nginx": 8}
    rows = [
        Outcome(name, 1, [], [make_run(rate, cpu=cpu.get(name, 1))] * 3)
        for name, rate in rates.items()
    ]
    assert judge(pinned=rows) == {
        "fast / aiohttp": True,
        "fast / webdis": False,
        "server's CPU for a usage, fast / nginx": True,
        "plain / aiohttp": True,
    }


def test_posts_as_deployed_are_compared_with_plain_ones() -> None:
    rates = {"plain": 100, "headers": 91, "token": 10, "deployed": 85}
    rows = [Outcome(name, 1, [], [make_run(rate)] * 3) for name, rate in rates.items()]
    assert judge(deployed=rows) == {"headers / plain": False, "deployed / plain": True}


def test_three_servers_are_compared_with_one() -> None:
    rates = {"replicated": 59, "fsync": 100, "stream": 10, "grouped": 20}
    rows = [Outcome(name, 1, [], [make_run(rate)] * 3) for name, rate in rates.items()]
    assert judge(replicated=rows) == {"replicated / fsync": False}


def test_behind_proxies_the_cpu_of_the_api_and_the_worst_share_are_judged() -> None:
    rows = [
        Outcome(
            name, 1, [], [make_run(10, cpu=cpu, share=0.995), make_run(10, cpu=cpu, share=share)]
        )
        for name, cpu, share in (
            ("direct", 10, 1),
            ("nginx", 11, 0.99),
            ("haproxy", 11.2, 0.989),
            ("tls", 99, 1),
        )
    ]
    assert judge(proxies=rows) == {
        "server's CPU for a usage, nginx / direct": True,
        "server's CPU for a usage, haproxy / direct": False,
        "share on the fast path, nginx": True,
        "share on the fast path, haproxy": False,
        "share on the fast path, tls": True,
    }


def test_a_picture_has_a_bar_for_each_row(tmp_path: Path) -> None:
    plot("posts", [make_durable(1, 2, 3), make_noop(1, 2, 3)], tmp_path / "posts.png")
    assert (tmp_path / "posts.png").read_bytes().startswith(b"\x89PNG")


def test_the_worst_lag_of_all_runs_is_judged() -> None:
    rows = [make_durable(1, lag=0.5), make_durable(1, lag=2.5)]
    assert make_report(posts=rows).goals[-1].value == "2.5 s"


def test_a_disagreement_is_shown_first_and_named() -> None:
    row = make_durable(1)
    row.counts = make_counts(lines=999)
    row.failures += find_disagreements(row.counts)
    result = make_report(batches=[row])
    assert result.failures[0].startswith("durable: ")
    assert render(result).startswith("FAILED\n\n- durable: ")
    assert "FAILED" in render(result)


def test_a_scenario_that_could_not_run_is_a_failure() -> None:
    result = Report(MACHINE, {}, {}, ["posts: valkey ended"])
    assert result.failures == ["posts: valkey ended"]
    assert "posts: valkey ended" in render(result)


def test_every_table_row_has_as_many_cells_as_its_head() -> None:
    text = render(make_report(posts=[make_durable(1, 2, 3), make_noop(1, 2, 3)]))
    tables = [part.splitlines() for part in text.split("\n\n") if part.startswith("|")]
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_json_holds_every_run_and_the_median() -> None:
    document = json.loads(
        json.dumps(make_report(posts=[make_durable(1, 3, 2), make_noop(1, 2, 4)]).as_json())
    )
    row = document["scenarios"]["posts"][0]
    assert [values["usages_per_second"] for values in row["runs"]] == [1, 3, 2]
    assert row["median"]["usages_per_second"] == 2
    assert document["ratios"] == {"posts": {"no-op": 1.0}}

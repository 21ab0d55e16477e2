"""What is measured, in which order."""

import shlex
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import Contender
from bench.durable import Durable
from bench.load import BATCHES, SINGLE, Load
from bench.machine import durability, versions
from bench.outcome import Outcome
from bench.progress import tell
from bench.reconcile import disagreements
from bench.reference import Noop
from bench.runs import Driver


@dataclass(frozen=True)
class Row:
    """One contender under one load."""

    title: str
    make: Callable[[Path], Contender]
    load: Load


@dataclass(frozen=True)
class Scenario:
    """Rows that are measured in turns, A B A B A B, so that a slow minute hits all of them."""

    name: str
    about: str
    rows: tuple[Row, ...]


SCENARIOS = (
    Scenario(
        "posts",
        "single posts: two durable API processes, beside two of Sanic's no-op",
        (
            Row("durable, 2 API processes", lambda folder: Durable(folder, apis=2), SINGLE),
            Row("Sanic no-op, 2 processes", lambda folder: Noop(folder, processes=2), SINGLE),
        ),
    ),
    Scenario(
        "process",
        "single posts: one durable API process, beside one of Sanic's no-op",
        (
            Row("durable, 1 API process", lambda folder: Durable(folder, apis=1), SINGLE),
            Row("Sanic no-op, 1 process", lambda folder: Noop(folder, processes=1), SINGLE),
        ),
    ),
    Scenario(
        "batches",
        f"batches of {BATCHES.usages}: two durable API processes",
        (
            Row(
                f"durable, 2 API processes, batches of {BATCHES.usages}",
                lambda folder: Durable(folder, apis=2),
                BATCHES,
            ),
        ),
    ),
)


def measure(
    scenario: Scenario, folder: Path, *, rounds: int, seconds: int, connections: int
) -> list[Outcome]:
    """Start what a scenario needs, measure it in turns, reconcile, and stop it all."""
    with ExitStack() as running:
        pairs = []
        for number, row in enumerate(scenario.rows):
            here = folder / f"{scenario.name}-{number}"
            tell(f"{scenario.name}: starting: {row.title}")
            contender = running.enter_context(row.make(here))
            driver = Driver(contender, row.load, here, connections)
            contender.probe(row.load)
            pairs.append((driver, _outcome(row, driver, _commands(driver, seconds, folder))))
        for turn in range(rounds):
            for driver, outcome in pairs:
                run = driver.measure(seconds)
                outcome.runs.append(run)
                tell(
                    f"{scenario.name}: round {turn + 1} of {rounds}: {outcome.title}:"
                    f" {run.usages_per_second:,.0f} usages/s"
                )
        for driver, outcome in pairs:
            _reconcile(driver, outcome, connections)
        return [outcome for _, outcome in pairs]


def _outcome(row: Row, driver: Driver, commands: list[str]) -> Outcome:
    contender = driver.contender
    outcome = Outcome(title=row.title, usages_per_request=row.load.usages, commands=commands)
    if isinstance(contender, Durable):
        outcome.versions = versions(contender.server)
        outcome.durability = durability(contender.server)
    return outcome


def _commands(driver: Driver, seconds: int, folder: Path) -> list[str]:
    """Show what runs, without the paths of this machine; the settings are the defaults."""
    argvs = [each.argv for each in driver.contender.processes.values()]
    return [
        shlex.join([Path(program).name, *rest]).replace(str(folder), "FOLDER")
        for program, *rest in [*argvs, driver.command(seconds)]
    ]


def _reconcile(driver: Driver, outcome: Outcome, connections: int) -> None:
    contender, load, tally = driver.contender, driver.load, driver.tally
    if not isinstance(contender, Durable):
        if tally.errors:
            outcome.failures.append(f"wrk saw {tally.errors:,} errors")
        return
    tell(f"reconciling: {outcome.title}")
    counts = contender.finish(
        load,
        # One more than wrk's: the probe.
        seen=(tally.answered + 1) * load.usages,
        cut_off=tally.runs * connections * load.usages,
        errors=tally.errors,
    )
    outcome.counts = counts
    outcome.failures += disagreements(counts)
    if outcome.failures:
        for each in contender.processes.values():
            # The folder will be gone.
            tell(each.tail())


def chosen(names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of these names, all for none, in our order."""
    return [each for each in SCENARIOS if not names or each.name in names]

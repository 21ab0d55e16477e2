"""Measures the rows of a scenario in turns."""

import shlex
from contextlib import ExitStack
from pathlib import Path

from bench.outcome import Outcome
from bench.progress import print_progress
from bench.runs import Driver
from bench.scenarios import Row, Scenario
from perf.machine import durability
from perf.reconcile import find_disagreements
from perf.stack import BusyapiStack

APPLICATION_CORE, OTHER_CORE = 0, 1


def measure(
    scenario: Scenario, folder: Path, *, rounds: int, seconds: int, connections: int
) -> list[Outcome]:
    """Start the contenders, measure them in turns, reconcile, and stop them."""
    connections = scenario.connections or connections
    with ExitStack() as running:
        pairs = []
        for number, row in enumerate(scenario.rows):
            here = folder / f"{scenario.name}-{number}"
            print_progress(f"{scenario.name}: starting: {row.title}")
            contender = running.enter_context(row.make(here))
            if scenario.pinned:
                contender.pin(APPLICATION_CORE, OTHER_CORE)
            core = OTHER_CORE if scenario.pinned else None
            driver = Driver(contender, row.load, here, connections, core)
            contender.probe(driver.load)
            pairs.append((driver, _outcome(row, driver, _commands(driver, seconds, folder))))
        for turn in range(rounds):
            for driver, outcome in pairs:
                run = driver.measure(seconds)
                outcome.runs.append(run)
                print_progress(
                    f"{scenario.name}: round {turn + 1} of {rounds}: {outcome.title}:"
                    f" {run.usages_per_second:,.0f} usages/s"
                )
        for driver, outcome in pairs:
            _reconcile(driver, outcome, connections)
        return [outcome for _, outcome in pairs]


def _outcome(row: Row, driver: Driver, commands: list[str]) -> Outcome:
    contender = driver.contender
    outcome = Outcome(
        title=row.title,
        usages_per_request=row.load.usages,
        commands=commands,
        keeps=row.keeps,
        versions=driver.contender.versions(),
    )
    if isinstance(contender, BusyapiStack):
        outcome.durability = durability(contender.server)
    return outcome


def _commands(driver: Driver, seconds: int, folder: Path) -> list[str]:
    """Return the command lines without the paths of this machine."""
    argvs = [process.argv for process in driver.contender.processes.values()]
    return [
        shlex.join([Path(program).name, *rest]).replace(str(folder), "FOLDER")
        for program, *rest in [*argvs, driver.command(seconds)]
    ]


def _reconcile(driver: Driver, outcome: Outcome, connections: int) -> None:
    contender, load, tally = driver.contender, driver.load, driver.tally
    if not isinstance(contender, BusyapiStack):
        if tally.errors:
            outcome.failures.append(f"wrk saw {tally.errors:,} errors")
        return
    print_progress(f"reconciling: {outcome.title}")
    counts = contender.finish(
        load,
        # One more than wrk's: the probe.
        seen=(tally.answered + 1) * load.usages,
        cut_off=tally.runs * connections * load.usages,
        errors=tally.errors,
    )
    outcome.counts = counts
    outcome.failures += find_disagreements(counts)
    if outcome.failures:
        for process in contender.processes.values():
            # The folder is removed after the run.
            print_progress(process.tail())

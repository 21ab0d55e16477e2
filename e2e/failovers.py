"""How long no post is answered with 201 while the primary of three bundled servers is replaced.

    python -m e2e.failovers --kind pod process node upgrade drain --rounds 30

It installs a release, and then disturbs it again and again under a load: each round begins and
ends with three servers that confirm every commit. It writes a line of JSON for each round, and a
table at the end. Behind the rounds of a kind, the archive is compared with every answer.

    pod       the primary's pod is deleted with --force
    process   the primary's process is killed with SIGKILL
    node      the primary's node is switched off without a word; API and flusher are elsewhere
    upgrade   the primary's pod is deleted with its grace period, as a rolling update does it
    drain     the primary's node is drained, with what else is on it
"""

import argparse
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

from e2e import environment, images
from e2e.evidence import collect
from e2e.kube import Kube, wait_for
from e2e.machine import switch_off_node
from e2e.measure import DUPLICATES, LOST, ScenarioFailed, count_defects, quantile
from e2e.openloop import OpenLoop
from e2e.release import NAME, Release
from e2e.scenarios import valkey_ha
from e2e.scenarios.faults import LABEL, evict_all
from e2e.target import NoCluster, find
from testkit.checker import Verdict
from testkit.history import Outcome

STEADY_SECONDS = 1.5
AWAY_SECONDS = 5.0
"""How long a node stays away after another server has taken over."""
TAKEOVER_SECONDS = 60.0
CRASH_GOAL, PLANNED_GOAL = 4.0, 1.0
"""The goals for the 95th percentile, in seconds."""


@dataclass
class Round:
    """One failover."""

    kind: str
    number: int
    at: str
    """The time of the disturbance."""
    old: str
    new: str = ""
    sent: int = 0
    failed: int = 0
    silence: float = 0.0
    silent_after: float = 0.0
    """When the longest silence began, in seconds after the disturbance."""
    seconds: float = 0.0
    statuses: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """A way to lose or replace the primary, and the goal for the silence."""

    disturb: Callable[[Release, str], None]
    goal: float
    kept_node: bool = False
    """Whether API and flusher stay on the first node, and the primary is on another one."""


def find_node(release: Release, pod: str) -> str:
    """Return the node of a pod."""
    return str(release.kube.core.read_namespaced_pod(pod, release.namespace).spec.node_name)


def move_primary(release: Release) -> None:
    """Let another server take over if the primary is on the node of the cluster's own parts."""
    kept = release.kube.nodes()[0].metadata.name
    while find_node(release, valkey_ha.find_primary(release)) == kept:
        release.kube.run(f"{NAME}-flusher-0", "busyapi", "hand-over")
        valkey_ha.wait_until_complete(release)


def wait_for_other(release: Release, old: str) -> None:
    """Wait until another server is the primary."""
    wait_for(
        lambda: valkey_ha.find_primary(release) not in {"", old}, "a primary", TAKEOVER_SECONDS
    )


def delete_pod(release: Release, old: str) -> None:
    """Delete the primary's pod with --force."""
    release.kube.delete_pod(old, grace=0)
    wait_for_other(release, old)


def kill_process(release: Release, old: str) -> None:
    """Kill the primary's process."""
    uid = release.kube.core.read_namespaced_pod(old, release.namespace).metadata.uid
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_server(path, uid)]
    if len(pids) != 1:
        raise ScenarioFailed(f"the processes of {old} on this machine: {pids}")
    os.kill(pids[0], signal.SIGKILL)
    wait_for_other(release, old)
    valkey_ha.wait_until_complete(release)
    # Only a new pod starts its containers at once, however often they have ended.
    release.kube.delete_pod(old)


def is_server(process: Path, uid: str) -> bool:
    """Return whether a process of this machine is the server of a pod."""
    try:
        cgroup = (process / "cgroup").read_text()
        command = (process / "cmdline").read_bytes()
    except OSError:
        return False
    is_in_pod = uid in cgroup or uid.replace("-", "_") in cgroup
    return is_in_pod and command.startswith(b"valkey-server") and b":6379" in command


def lose_node(release: Release, old: str) -> None:
    """Switch the primary's node off, and on again when another server has taken over."""
    node = find_node(release, old)
    with switch_off_node(release.target, node):
        wait_for_other(release, old)
        time.sleep(AWAY_SECONDS)
    for pod in release.kube.pods():
        if pod.spec.node_name == node:
            release.kube.delete_pod(pod.metadata.name, grace=0)


def end_pod(release: Release, old: str) -> None:
    """Delete the primary's pod, so that it hands over."""
    release.kube.delete_pod(old)
    wait_for_other(release, old)


def drain_node(release: Release, old: str) -> None:
    """Drain the primary's node."""
    node = find_node(release, old)
    release.kube.cordon(node, on=True)
    try:
        evict_all(release.kube, node)
    finally:
        release.kube.cordon(node, on=False)


KINDS = {
    "pod": Kind(delete_pod, CRASH_GOAL),
    "process": Kind(kill_process, CRASH_GOAL),
    "node": Kind(lose_node, CRASH_GOAL, kept_node=True),
    "upgrade": Kind(end_pod, PLANNED_GOAL),
    "drain": Kind(drain_node, PLANNED_GOAL),
}


def run_round(release: Release, name: str, number: int) -> Round:
    """Disturb the primary once, and wait until all servers hold everything again."""
    kind = KINDS[name]
    if kind.kept_node:
        move_primary(release)
    old = valkey_ha.find_primary(release)
    with release.load(valkey_ha.RATE) as load:
        time.sleep(STEADY_SECONDS)
        entry = Round(name, number, datetime.now(UTC).isoformat(timespec="milliseconds"), old)
        began = time.monotonic()
        kind.disturb(release, old)
        valkey_ha.wait_until_complete(release)
        entry.seconds = round(time.monotonic() - began, 1)
        time.sleep(STEADY_SECONDS)
        figures = load.stop()
    entry.new = valkey_ha.find_primary(release)
    entry.sent, entry.failed, entry.statuses = figures.sent, figures.failed, figures.statuses
    entry.silence = round(figures.silence, 3)
    entry.silent_after = round(find_silence(load) - began, 3)
    return entry


def find_silence(load: OpenLoop) -> float:
    """Return when the longest time without a 201 began."""
    answers = (sample.answered for sample in load.samples if sample.outcome is Outcome.OK)
    times = [load.began, *sorted(at for at in answers if at <= load.ended), load.ended]
    return max(pairwise(times), key=lambda pair: pair[1] - pair[0])[0]


def run_kind(
    release: Release, name: str, rounds: int, output: TextIO, logs: Path | None
) -> list[Round]:
    """Run the rounds of a kind, and write a line for each."""
    entries = []
    for number in range(1, rounds + 1):
        entry = run_round(release, name, number)
        entries.append(entry)
        output.write(json.dumps(asdict(entry)) + "\n")
        output.flush()
        if logs and entry.silence > KINDS[name].goal:
            collect(release.kube, logs / f"{name}-{number}")
    return entries


def make_row(name: str, entries: Sequence[Round], verdict: Verdict) -> str:
    """Return the row of a kind in the table."""
    silences = [entry.silence for entry in entries]
    cells = [
        name,
        str(len(entries)),
        f"{min(silences):.2f}",
        f"{statistics.median(silences):.2f}",
        f"{quantile(silences, 0.95):.2f}",
        f"{max(silences):.2f}",
        f"{sum(entry.sent for entry in entries):,}",
        f"{sum(entry.failed for entry in entries):,}",
        str(verdict.skipped),
        str(count_defects(verdict, LOST)),
        str(count_defects(verdict, DUPLICATES)),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = (
    "| the primary's | rounds | minimum | median | p95 | maximum | posts | not answered with 201"
    " | ids skipped | lost | duplicates |\n|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


@contextmanager
def installed(kind: Kind) -> Iterator[Release]:
    """Install three servers on the cluster, in a namespace of their own."""
    target = find()
    kube = Kube(target.kubeconfig, "default")
    images.load_busyapi(target, kube.cluster_id(), environment.default_image())
    valkey = environment.valkey_image()
    images.build_valkey(target, valkey, present=kube.has_image(valkey))
    with Release(target, f"e2e-{os.getpid()}-failovers") as release:
        values: dict[str, Any] = valkey_ha.make_values(release, valkey_ha.SERVERS)
        if kind.kept_node:
            selector = {LABEL: release.kube.nodes()[0].metadata.labels[LABEL]}
            flusher = {**values["flusher"], "nodeSelector": selector}
            values |= {"nodeSelector": selector, "flusher": flusher}
        release.install(values)
        valkey_ha.wait_until_complete(release)
        release.wait_until_routed()
        yield release


def main() -> int:
    """Run the kinds one after the other, and print the table; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m e2e.failovers", description=__doc__)
    parser.add_argument("--kind", nargs="+", choices=KINDS, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--output", type=Path, help="append the lines of the rounds to this file")
    parser.add_argument("--logs", type=Path, help="keep the logs of rounds above the goal here")
    options = parser.parse_args()
    output = options.output.open("a") if options.output else sys.stderr
    rows, is_met = [HEAD], True
    for name in options.kind:
        try:
            with installed(KINDS[name]) as release:
                entries = run_kind(release, name, options.rounds, output, options.logs)
                verdict = release.audit(failover=True)
                valkey_ha.require_no_refusal(release)
        except NoCluster as error:
            sys.stderr.write(f"{error}\n")
            return 2
        rows.append(make_row(name, entries, verdict))
        is_met &= quantile([entry.silence for entry in entries], 0.95) <= KINDS[name].goal
    sys.stdout.write("\n".join(rows) + "\n")
    return 0 if is_met else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main())

"""How long no post is answered with 201 during failovers in the tier `replicated`.

    python -m bench.failovers --kind crash --rounds 30
    python -m bench.failovers --kind planned --rounds 30
    python -m bench.failovers --kind silent --rounds 30

Three servers and three Sentinels, an API and a flusher on this machine, and about 200 posts a
second. `crash` kills the primary with SIGKILL. `silent` stops its process, so that it does not
answer, as a lost node. `planned` does what a server does before it stops:
it asks the flusher to replace it, waits until it is a replica, and stops. At the end the archive is
compared with every answer.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import redis

from testkit.history import Outcome
from testkit.load import Load
from testkit.replicated import ReplicatedStack, return_to
from testkit.servers import FLAVOURS, Server
from testkit.waiting import wait_until

CONNECTIONS = 5
PAUSE_SECONDS = 0.022
"""Of each connection after a 201: together with its answer, 200 posts a second of all."""
SETTLE_SECONDS = 2.0
REQUEST_SECONDS = 60
"""How long the flusher may take to act on a request."""


def crash(server: Server) -> None:
    """Kill a primary."""
    server.kill9()


def freeze(server: Server) -> None:
    """Stop a primary without a word: its connections stay open, and nothing answers."""
    server.pause()


def hand_over(server: Server) -> None:
    """Do what a server does before it stops, as docs/explanation/replication.md says."""
    server.client().set("busyapi:{0}:handover", f"127.0.0.1:{server.port}", ex=REQUEST_SECONDS)

    def is_replaced() -> bool:
        with suppress(redis.RedisError):
            state = server.replication()
            return bool(state["role"] != "master" and not state["connected_slaves"])
        return False

    wait_until(is_replaced, f"{server} to be replaced", seconds=REQUEST_SECONDS, every=0.02)
    server.stop()


KINDS: dict[str, Callable[[Server], None]] = {
    "crash": crash,
    "planned": hand_over,
    "silent": freeze,
}


def find_silence(times: list[float], started: float, ended: float) -> float:
    """Return the longest time without a 201 that overlaps an interval."""
    first = max(0, bisect_left(times, started) - 1)
    last = min(len(times), bisect_left(times, ended) + 1)
    window = times[first:last]
    return max(later - earlier for earlier, later in pairwise(window))


def run(kind: str, rounds: int, flavour: str, folder: Path) -> dict[str, object]:
    """Run the rounds, and return the results."""
    replicated = ReplicatedStack(folder, flavour)  # type: ignore[arg-type]
    intervals, waits = [], []
    with replicated.running():
        load = Load(
            replicated.stack.port,
            connections=CONNECTIONS,
            pause_after_201=PAUSE_SECONDS,
            history=replicated.history,
        )
        with load:
            time.sleep(SETTLE_SECONDS)
            for number in range(rounds):
                old = replicated.sentinels.primary()
                started = time.monotonic()
                KINDS[kind](old)
                waits.append(time.monotonic() - started)
                new = replicated.sentinels.wait_for_failover(old)
                replicated.wait_for_usages()
                intervals.append((started, time.monotonic()))
                old.kill9()
                return_to(old, new)
                replicated.wait_for_holders()
                time.sleep(SETTLE_SECONDS)
                silence = _silences(replicated, intervals)[-1]
                print(f"{kind} {number + 1}/{rounds}: {silence:.2f} s", file=sys.stderr, flush=True)  # noqa: T201
        silences = _silences(replicated, intervals)
        verdict = replicated.finish()
    history = replicated.history
    return {
        "kind": kind,
        "flavour": flavour,
        "rounds": rounds,
        "silence_seconds": describe(silences),
        "request_seconds": describe(waits) if kind == "planned" else None,
        "posts": len(history.requests),
        "outcomes": {str(outcome): history.usages[outcome] for outcome in Outcome},
        "skipped_ids": verdict.skipped,
        "defects": {str(defect): count for defect, count in verdict.defects.items()},
    }


def _silences(replicated: ReplicatedStack, intervals: list[tuple[float, float]]) -> list[float]:
    times = sorted(
        request.answered for request in replicated.history.requests if request.outcome is Outcome.OK
    )
    return [find_silence(times, started, ended) for started, ended in intervals]


def describe(values: list[float]) -> dict[str, object]:
    """Return minimum, median, 95th percentile and maximum of some seconds, and all of them."""
    ordered = sorted(values)
    p95 = ordered[min(len(ordered) - 1, -(-len(ordered) * 95 // 100) - 1)]
    return {
        "min": round(ordered[0], 3),
        "median": round(statistics.median(ordered), 3),
        "p95": round(p95, 3),
        "max": round(ordered[-1], 3),
        "all": [round(value, 3) for value in values],
    }


def main() -> int:
    """Run the rounds that the arguments ask for; return 1 if the archive is not as answered."""
    parser = argparse.ArgumentParser(prog="python -m bench.failovers", description=__doc__)
    parser.add_argument("--kind", choices=sorted(KINDS), required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--flavour", choices=FLAVOURS, default="valkey")
    parser.add_argument("--folder", type=Path, help="keep logs here (default: a temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        results = run(options.kind, options.rounds, options.flavour, folder)
    print(json.dumps(results, indent=2))  # noqa: T201
    return 1 if results["defects"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""The scenarios, in the order in which they are measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.peers import contenders as peers
from bench.peers.nats_cluster import NatsCluster
from bench.peers.proxies import HAPROXY, NGINX, TRAEFIK, ProxiedStack
from bench.reference import Noop
from perf.contender import Contender
from perf.guarded_stack import GuardedStack
from perf.load import BATCHES, DEPLOYED, FORWARDED_SINGLE, SINGLE, Load
from perf.replicated_stack import ReplicatedStack
from perf.stack import BusyapiStack


@dataclass(frozen=True)
class Row:
    """One contender under one load."""

    title: str
    make: Callable[[Path], Contender]
    load: Load
    keeps: str = "nothing"
    """Where a usage is stored when the contender answers."""


@dataclass(frozen=True)
class Scenario:
    """Rows that are measured in turns, A B A B A B, so that a slow minute affects all of them."""

    name: str
    about: str
    rows: tuple[Row, ...]
    pinned: bool = False
    """Whether the application runs on one core, and load and storage on the other."""
    is_optional: bool = False
    """Whether it runs only if it is named."""
    connections: int | None = None
    """Connections of wrk, if not those of the command line."""


DISK = "on disk (fsync)"
MEMORY = "in memory"
THREE_DISKS = "on three disks (fsync)"
MAJORITY = "on two of three disks (fsync)"
PROXIED_CONNECTIONS = 64


def _durable(folder: Path) -> BusyapiStack:
    return BusyapiStack(folder, apis=1)


def _plain(folder: Path) -> BusyapiStack:
    return BusyapiStack(folder, apis=1, settings={"BUSYAPI_FAST_PATH": "off"})


SCENARIOS = (
    Scenario(
        "posts",
        "single posts: two durable API processes, compared with two of Sanic's no-op",
        (
            Row(
                "durable, 2 API processes",
                lambda folder: BusyapiStack(folder, apis=2),
                SINGLE,
                DISK,
            ),
            Row("Sanic no-op, 2 processes", lambda folder: Noop(folder, processes=2), SINGLE),
        ),
    ),
    Scenario(
        "process",
        "single posts: one durable API process, compared with one of Sanic's no-op",
        (
            Row("durable, 1 API process", _durable, SINGLE, DISK),
            Row("Sanic no-op, 1 process", lambda folder: Noop(folder, processes=1), SINGLE),
        ),
    ),
    Scenario(
        "batches",
        f"batches of {BATCHES.usages}: two durable API processes",
        (
            Row(
                f"durable, 2 API processes, batches of {BATCHES.usages}",
                lambda folder: BusyapiStack(folder, apis=2),
                BATCHES,
                DISK,
            ),
        ),
    ),
    Scenario(
        "pinned",
        "single posts, the application alone on its core: one process, and reference servers",
        (
            Row("durable, fast path", _durable, SINGLE, DISK),
            Row("durable, plain route", _plain, SINGLE, DISK),
            Row("aiohttp no-op", peers.aiohttp, SINGLE),
            Row("webdis, XADD", peers.webdis, peers.WEBDIS_LOAD, DISK),
            Row("nginx, return 201", peers.nginx, SINGLE),
        ),
        pinned=True,
    ),
    Scenario(
        "credentials",
        "single posts with credentials, the application alone on its core, compared with none",
        (
            Row("no credential", _durable, SINGLE, DISK),
            Row("a token", partial(GuardedStack, kind="token"), SINGLE, DISK),
            Row("a JWT", partial(GuardedStack, kind="jwt"), SINGLE, DISK),
        ),
        pinned=True,
    ),
    Scenario(
        "deployed",
        "single posts, the application alone on its core: as from wrk, and as from an ingress",
        (
            Row("plain wrk", _durable, SINGLE, DISK),
            Row("14 differing headers", _durable, FORWARDED_SINGLE, DISK),
            Row("a token, plain wrk", partial(GuardedStack, kind="token"), SINGLE, DISK),
            Row(
                f"a token, 14 differing headers, {DEPLOYED.patients:,} patients",
                partial(GuardedStack, kind="token"),
                DEPLOYED,
                DISK,
            ),
        ),
        pinned=True,
    ),
    Scenario(
        "proxies",
        f"single posts, one API process behind a proxy, {PROXIED_CONNECTIONS} connections",
        (
            Row("direct", _durable, SINGLE, DISK),
            Row("behind nginx", partial(ProxiedStack, proxy=NGINX), SINGLE, DISK),
            Row("behind HAProxy", partial(ProxiedStack, proxy=HAPROXY), SINGLE, DISK),
            Row("behind Traefik", partial(ProxiedStack, proxy=TRAEFIK), SINGLE, DISK),
            Row("TLS at nginx", partial(ProxiedStack, proxy=NGINX, has_tls=True), SINGLE, DISK),
        ),
        connections=PROXIED_CONNECTIONS,
    ),
    Scenario(
        "replicated",
        "single posts: three servers in the tier `replicated`, compared with one in `fsync`"
        " and with NATS JetStream",
        (
            Row(
                "replicated, three servers",
                partial(ReplicatedStack, apis=1),
                SINGLE,
                THREE_DISKS,
            ),
            Row("fsync, one server", _durable, SINGLE, DISK),
            Row("NATS JetStream R3, sync always", NatsCluster, SINGLE, MAJORITY),
            Row(
                "NATS JetStream R3, sync always, group commit",
                partial(NatsCluster, has_group_commit=True),
                SINGLE,
                MAJORITY,
            ),
        ),
    ),
    Scenario(
        "peers",
        "single posts on the whole machine, one process each unless stated:"
        " compared with public servers",
        (
            Row("busyapi, durable", _durable, SINGLE, DISK),
            Row("busyapi, plain route", _plain, SINGLE, DISK),
            Row("nginx, return 201", peers.nginx, SINGLE),
            Row("webdis, XADD, no ids", peers.webdis, peers.WEBDIS_LOAD, DISK),
            Row("Granian RSGI, no-op", peers.granian, SINGLE),
            Row("aiohttp, no-op", peers.aiohttp, SINGLE),
            Row("FastAPI + uvicorn, no-op", peers.fastapi, SINGLE),
            Row("Express, array", peers.express_array, SINGLE, MEMORY),
            Row("Express x 2, INCR + HSET", peers.express_redis, SINGLE, DISK),
        ),
        is_optional=True,
    ),
)


def make_comparisons(checkout: Path) -> tuple[Scenario, ...]:
    """Return scenarios that compare the service of another checkout with this one's."""
    older = {"PYTHONPATH": str((checkout / "service").resolve())}
    loads: tuple[tuple[str, str, Load, dict[str, str]], ...] = (
        ("before-posts", "single posts", SINGLE, {}),
        (
            "before-plain",
            "single posts without the fast path",
            SINGLE,
            # The older name is for the other checkout.
            {"BUSYAPI_FAST_LANE": "off", "BUSYAPI_FAST_PATH": "off"},
        ),
        ("before-batches", f"batches of {BATCHES.usages}", BATCHES, {}),
    )
    return tuple(
        Scenario(
            name,
            f"{what}: one durable API process, compared with one of --before",
            (
                Row(f"{what}, now", partial(BusyapiStack, apis=1, settings=settings), load, DISK),
                Row(
                    f"{what}, before",
                    partial(BusyapiStack, apis=1, settings=settings | older),
                    load,
                    DISK,
                ),
            ),
            pinned=True,
        )
        for name, what, load, settings in loads
    )


def select_scenarios(names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of these names; without names, those that run by default."""
    return [
        scenario
        for scenario in SCENARIOS
        if scenario.name in names or not (names or scenario.is_optional)
    ]

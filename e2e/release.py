"""A release in a namespace of its own, with all that was ever sent to it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import helm_python

from e2e import pod_archive
from e2e.kube import Kube, wait_for
from e2e.measure import no_id_jumped, nothing_lost
from e2e.openloop import OpenLoop
from e2e.target import ROOT, Target
from testkit.archive_reader import Archive
from testkit.checker import Verdict, check_history
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Answer, fetch

CHART = ROOT / "charts" / "busyapi"
NAME = "busyapi"
HELM_SECONDS = 240
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/ingress/gateways/gateway"
SEED = (ROOT / "data.json").read_bytes()
"""The body that the README's curl line posts."""


class Release:
    """One namespace: install into it, send to it, compare its archive with the answers."""

    def __init__(self, target: Target, namespace: str, *, partitions: int = 1) -> None:
        self.target = target
        self.namespace = namespace
        self.host = f"{namespace}.busyapi.test"
        self.kube = Kube(target.kubeconfig, namespace)
        there = self.kube.has(
            "/apis/gateway.networking.k8s.io/v1/namespaces/ingress/gateways/gateway"
        )
        self.gateway_host = f"gateway-{self.host}" if there else ""
        self.helm = helm_python.Config(kubeconfig_path=target.kubeconfig, namespace=namespace)
        self.partitions = partitions
        self.history = History()
        self.seeds: set[int] = set()
        self.values: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.kube.create_namespace()
        return self

    def __exit__(self, *exc: object) -> None:
        self.helm.uninstall(NAME, ignore_not_found=True)
        self.helm.close()
        self.kube.delete_namespace()

    def install(self, values: dict[str, Any] | None = None, chart: Path = CHART) -> None:
        """`helm install --wait`."""
        self.values = values or {}
        self.helm.install(chart, NAME, self.values, wait="watcher", timeout=HELM_SECONDS)
        self.kube.wait_settled()

    def upgrade(self, values: dict[str, Any], chart: Path = CHART) -> None:
        """`helm upgrade --wait`, with these values over the ones there are."""
        self.values = merged(self.values, values)
        self.helm.upgrade(chart, NAME, self.values, wait="watcher", timeout=HELM_SECONDS)
        self.kube.wait_settled()

    def routes(self) -> dict[str, Any]:
        """Values that make the release reachable by this site's hosts."""
        values: dict[str, Any] = {"ingress": {"enabled": True, "hosts": [{"host": self.host}]}}
        if self.gateway_host:
            values["httpRoute"] = {
                "enabled": True,
                "parentRefs": [{"name": "gateway", "namespace": "ingress"}],
                "hostnames": [self.gateway_host],
            }
        return values

    @property
    def hosts(self) -> dict[str, str]:
        """The ways in, with the host that leads to each."""
        ways = {"Ingress": self.host, "Gateway": self.gateway_host}
        return {way: host for way, host in ways.items() if host}

    def ask(self, path: str, *, body: bytes | None = None, host: str = "") -> Answer:
        """Ask through the ingress controller, by this site's host or another."""
        headers = {"Host": host or self.host}
        if body is not None:
            headers["Content-Type"] = "application/json"
        return fetch(
            self.target.port,
            path,
            method="GET" if body is None else "POST",
            body=body,
            headers=headers,
            seconds=20,
        )

    def wait_routed(self, host: str = "") -> None:
        """Wait until the ingress controller knows the host and the API is ready behind it."""

        def routed() -> bool:
            try:
                return self.ask("/api/usages/count", host=host).status == 200
            except OSError:
                return False

        wait_for(routed, f"{host or self.host} to be routed", 60)

    def seed(self, host: str = "") -> int:
        """Post what the README's curl line does, and return the id."""
        sent = time.monotonic()
        answer = self.ask("/api/usages", body=SEED, host=host)
        assert answer.status == 201, answer
        number: int = answer.json()["id"]
        self.seeds.add(number)
        self.note(seed_name(number), number, sent)
        return number

    def note(self, name: bytes, number: int, sent: float) -> None:
        """Write down a usage that something else than a load was answered for."""
        self.history.add(
            Request(
                digests=(name,),
                outcome=Outcome.OK,
                ids=(number,),
                status=201,
                sent=sent,
                answered=time.monotonic(),
            )
        )

    def helm_test(self) -> None:
        """`helm test`, and write down the usage it posted."""
        sent = time.monotonic()
        output = self.helm.test(NAME, timeout=HELM_SECONDS, logs=True)
        posted = [line for line in output["logs"].splitlines() if "posted usage" in line]
        number = int(posted[-1].rsplit(" ", 1)[1])
        usage = json.loads(self.flusher_line(number))["usage"]
        self.note(digest(usage), number, sent)

    def flusher_line(self, number: int) -> bytes:
        """Return the archived line of an id, by the command that the README names."""
        pod = f"{NAME}-flusher-{(number - 1) % self.partitions}"
        command = ("busyapi", "archive", "cat", "--dir", pod_archive.FOLDER, "--id", str(number))
        return self.kube.run(pod, *command)

    @contextmanager
    def load(self, rate: float, *, mixed: bool = False) -> Iterator[OpenLoop]:
        """Load through the ingress; add its answers to the history of this site."""
        loop = OpenLoop(self.target.port, self.host, rate, mixed=mixed)
        try:
            with loop:
                yield loop
        finally:
            for request in loop.history.requests:
                self.history.add(request)

    def audit(self, seconds: float = 90, *, failover: bool = False) -> Verdict:
        """Compare the whole archive with all that was ever sent here.

        Raises:
            Broken: a usage is lost, or twice, or ids were jumped over without a failover, or
                anything else is wrong.
        """
        self.wait_flushed(seconds)
        archive = self.distinguish_seeds(pod_archive.read(self.kube))
        verdict = check_history(self.history, archive, partitions=self.partitions)
        nothing_lost(verdict)
        if not failover:
            no_id_jumped(verdict)
        pod_archive.verify(self.kube)
        return verdict

    def wait_flushed(self, seconds: float = 60) -> None:
        """Wait until all that was answered is archived."""
        highest: dict[int, int] = {}
        for number in (entry for request in self.history.requests for entry in request.ids):
            partition = (number - 1) % self.partitions
            seq = (number - 1) // self.partitions + 1
            highest[partition] = max(seq, highest.get(partition, 0))
        pod_archive.wait_flushed(self.kube, highest, seconds)

    def distinguish_seeds(self, archive: Archive) -> Archive:
        """Return the archive with the README's equal usages distinguished by their ids."""
        same = digest(json.loads(SEED))
        for part in archive.partitions.values():
            part.lines = [
                line._replace(digest=seed_name(line.id))
                if line.id in self.seeds and line.digest == same
                else line
                for line in part.lines
            ]
        return archive


def seed_name(number: int) -> bytes:
    """Return the name in the history of a usage that is sent more than once."""
    return blake2b(f"seed {number}".encode(), digest_size=16).digest()


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge values as Helm does: maps member by member, all else replaced."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merged(old, value) if both and isinstance(old, dict) else value
    return result

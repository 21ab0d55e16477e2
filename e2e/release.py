"""A release in its own namespace, with the history of all its requests."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import helm_python

from e2e import pod_archive
from e2e.kube import Kube, wait_for
from e2e.measure import require_no_skipped_ids, require_nothing_lost
from e2e.openloop import OpenLoop
from e2e.target import ROOT, Target
from testkit.archive_reader import Archive
from testkit.checker import Verdict, check_history
from testkit.history import History, Outcome, Request, digest
from testkit.http1 import Answer, Tls, fetch
from testkit.stamping import StampedClient

CHART = ROOT / "charts" / "busyapi"
NAME = "busyapi"
HELM_SECONDS = 240
HELM_WAIT = {True: "watcher", False: "hookOnly"}
"""With and without `--wait`."""
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/ingress/gateways/gateway"
OPEN = {"auth": {"allowAnonymousWrites": True, "allowAnonymousReads": True}}
"""Loads and checks have no credential, except in the parts `closed` and `production`."""
EXAMPLE = (ROOT / "data.json").read_bytes()
"""The usage that the README posts with curl."""


class Release:
    """A namespace with a release: it is installed, gets posts, and its archive is checked."""

    def __init__(self, target: Target, namespace: str, *, partitions: int = 1) -> None:
        self.target = target
        self.namespace = namespace
        self.host = f"{namespace}.busyapi.test"
        self.kube = Kube(target.kubeconfig, namespace)
        gateway_exists = self.kube.exists(
            "/apis/gateway.networking.k8s.io/v1/namespaces/ingress/gateways/gateway"
        )
        self.gateway_host = f"gateway-{self.host}" if gateway_exists else ""
        self.helm = helm_python.Config(kubeconfig_path=target.kubeconfig, namespace=namespace)
        self.partitions = partitions
        self.history = History()
        self.example_ids: set[int] = set()
        self.values: dict[str, Any] = {}
        self.token = ""
        """The credential of requests."""
        self.clients: tuple[StampedClient, ...] = ()
        """The clients whose credentials the requests of a load have in turn."""
        self.test_writer = ""
        """The writer in the stamps of the usages of `helm test`, "" without stamps."""
        self.tls: Tls | None = None
        """How clients verify the ingress controller's certificate. None: they use HTTP."""

    def __enter__(self) -> Self:
        self.kube.create_namespace()
        return self

    def __exit__(self, *exc: object) -> None:
        self.helm.uninstall(NAME, ignore_not_found=True)
        self.helm.close()
        self.kube.delete_namespace()

    def install(
        self, values: dict[str, Any] | None = None, chart: Path = CHART, *, wait: bool = True
    ) -> None:
        """Run `helm install`. Without other values the release is open to everyone."""
        self.values = _open(values or {}, chart)
        self.helm.install(chart, NAME, self.values, wait=HELM_WAIT[wait], timeout=HELM_SECONDS)
        if wait:
            self.kube.wait_until_settled()

    def upgrade(self, values: dict[str, Any], chart: Path = CHART, *, wait: bool = True) -> None:
        """Run `helm upgrade`, with these values merged into the current ones."""
        self.values = _open(merge_values(self.values, values), chart)
        self.helm.upgrade(chart, NAME, self.values, wait=HELM_WAIT[wait], timeout=HELM_SECONDS)
        if wait:
            self.kube.wait_until_settled()

    def routing_values(self) -> dict[str, Any]:
        """Return values that route this namespace's hosts to the release."""
        values: dict[str, Any] = {
            "ingress": {"enabled": True, "hosts": [{"host": self.host}]},
            # No DNS knows this host.
            "tests": {"outside": {"enabled": False}},
        }
        if self.gateway_host:
            values["httpRoute"] = {
                "enabled": True,
                "parentRefs": [{"name": "gateway", "namespace": "ingress"}],
                "hostnames": [self.gateway_host],
            }
        return values

    @property
    def hosts(self) -> dict[str, str]:
        """Return the host of Ingress and, if there is one, of Gateway."""
        hosts = {"Ingress": self.host, "Gateway": self.gateway_host}
        return {kind: host for kind, host in hosts.items() if host}

    @property
    def port(self) -> int:
        """The port of the ingress controller that clients use."""
        return self.target.tls_port if self.tls else self.target.port

    def request(
        self, path: str, *, body: bytes | None = None, host: str = "", token: str | None = None
    ) -> Answer:
        """Send a request through the ingress controller, by default with the release's host."""
        headers = {"Host": host or self.host}
        if token := self.token if token is None else token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        return fetch(
            self.port,
            path,
            method="GET" if body is None else "POST",
            body=body,
            headers=headers,
            seconds=20,
            tls=self.tls,
        )

    def wait_until_routed(self, host: str = "") -> None:
        """Wait until the ingress controller knows the host and the API is ready behind it."""

        def is_routed() -> bool:
            try:
                return self.request("/api/usages/count", host=host).status == 200
            except OSError:
                return False

        wait_for(is_routed, f"{host or self.host} to be routed", 60)

    def post_example(self, host: str = "") -> int:
        """Post the README's usage, and return the id."""
        sent = time.monotonic()
        answer = self.request("/api/usages", body=EXAMPLE, host=host)
        assert answer.status == 201, answer
        number: int = answer.json()["id"]
        self.add_example(number, sent)
        return number

    def add_example(self, number: int, sent: float) -> None:
        """Add to the history the README's usage, posted with this id."""
        self.example_ids.add(number)
        self.record(name_example(number), number, sent)

    def record(self, name: bytes, number: int, sent: float, *, writer: str = "") -> None:
        """Add to the history a usage that was not posted by a load."""
        self.history.add(
            Request(
                digests=(name,),
                outcome=Outcome.OK,
                ids=(number,),
                status=201,
                sent=sent,
                answered=time.monotonic(),
                writer=writer,
            )
        )

    def helm_test(self) -> None:
        """Run `helm test`, and add the usage of each of its pods to the history."""
        sent = time.monotonic()
        output = self.helm.test(NAME, timeout=HELM_SECONDS, logs=True)
        posted = [line for line in output["logs"].splitlines() if "posted usage" in line]
        assert len(posted) == 1 + self.values.get("tests", {}).get("outside", {}).get(
            "enabled", False
        )
        for line in posted:
            number = int(line.rsplit(" ", 1)[1])
            wait_for(lambda: self.read_archived_line(number), "the usage in the archive")  # noqa: B023
            usage = json.loads(self.read_archived_line(number))["usage"]
            self.record(digest(usage), number, sent, writer=self.test_writer)

    def read_archived_line(self, number: int) -> bytes:
        """Return the archived line of an id, with the README's command."""
        pod = f"{NAME}-flusher-{(number - 1) % self.partitions}"
        command = ("busyapi", "archive", "cat", "--dir", pod_archive.FOLDER, "--id", str(number))
        return self.kube.run(pod, *command)

    @contextmanager
    def load(
        self,
        rate: float,
        *,
        mixed: bool = False,
        keep_alive: bool = True,
        clients: Sequence[StampedClient] | None = None,
    ) -> Iterator[OpenLoop]:
        """Run a load through the ingress, and add its answers to the history."""
        loop = OpenLoop(
            self.port,
            self.host,
            rate,
            mixed=mixed,
            tls=self.tls,
            clients=self.clients if clients is None else clients,
            keep_alive=keep_alive,
        )
        try:
            with loop:
                yield loop
        finally:
            for request in loop.history.requests:
                self.history.add(request)

    def audit(self, seconds: float = 90, *, failover: bool = False) -> Verdict:
        """Compare the archive with the history of all requests.

        Raises:
            ScenarioFailed: The checker found a defect, or ids were skipped without a failover.
        """
        self.wait_until_flushed(seconds)
        archive = self.distinguish_examples(pod_archive.read(self.kube))
        verdict = check_history(self.history, archive, partitions=self.partitions)
        require_nothing_lost(verdict)
        if not failover:
            require_no_skipped_ids(verdict)
        pod_archive.verify(self.kube)
        return verdict

    def wait_until_flushed(self, seconds: float = 60) -> None:
        """Wait until all answered usages are archived."""
        highest: dict[int, int] = {}
        for number in (entry for request in self.history.requests for entry in request.ids):
            partition = (number - 1) % self.partitions
            seq = (number - 1) // self.partitions + 1
            highest[partition] = max(seq, highest.get(partition, 0))
        pod_archive.wait_until_flushed(self.kube, highest, seconds)

    def distinguish_examples(self, archive: Archive) -> Archive:
        """Return the archive with each of the README's equal usages named by its id."""
        same = digest(json.loads(EXAMPLE))
        for part in archive.partitions.values():
            part.lines = [
                line._replace(digest=name_example(line.id))
                if line.id in self.example_ids and line.digest == same
                else line
                for line in part.lines
            ]
        return archive


def _open(values: dict[str, Any], chart: Path) -> dict[str, Any]:
    """Return values of a release that is open unless they say otherwise. Older charts are."""
    return merge_values(OPEN, values) if chart == CHART else values


def name_example(number: int) -> bytes:
    """Return the name that the history has for a README's usage with this id."""
    return blake2b(f"example {number}".encode(), digest_size=16).digest()


def merge_values(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge values as Helm does: merge maps, replace everything else."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[name] = merge_values(old, value) if both and isinstance(old, dict) else value
    return result

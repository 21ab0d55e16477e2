"""Install without anonymous access: only clients with a credential may post and read."""

import json
import secrets
import time
from hashlib import sha256
from typing import Any, NamedTuple

import helm_python

from e2e.kube import wait_for
from e2e.measure import ScenarioFailed
from e2e.release import EXAMPLE, Release
from e2e.report import Report

CLOSED = {"allowAnonymousWrites": False, "allowAnonymousReads": False}
PROTECTED_PATHS = ("/api/usages/1", "/api/usages/count")
PUBLIC = ("/", "/openapi.json")
REVOKED_SECONDS = 150
"""The kubelet takes up to two minutes to update the files of a Secret, the API a few seconds."""


class Client(NamedTuple):
    """A client with a token."""

    name: str
    scopes: tuple[str, ...]
    token: str

    @property
    def table(self) -> str:
        """Its table in the file of credentials."""
        digest = sha256(self.token.encode()).hexdigest()
        return f'[tokens.{self.name}]\nsha256 = "{digest}"\nscopes = {json.dumps(self.scopes)}\n'


def make_client(name: str, *scopes: str) -> Client:
    """Return a client with a new token."""
    return Client(name, scopes, secrets.token_urlsafe())


def make_values(release: Release, *clients: Client) -> dict[str, Any]:
    """Return values of a release that only these clients may use."""
    credentials = "".join(client.table for client in clients)
    return {**release.routing_values(), "auth": {**CLOSED, "credentials": credentials}}


def require_credentials(release: Release, report: Report) -> None:
    """Check what each client may do, and that a revoked token ends without a restart."""
    device, clinic = make_client("device", "write"), make_client("clinic", "write", "read")
    with report.row("closed: an Ingress without credentials is refused") as row:
        try:
            release.install(make_values(release))
        except helm_python.HelmError as error:
            if "no client has a credential" not in str(error):
                raise
        else:
            raise ScenarioFailed("an open Ingress was installed")
        row.notes.append("the message names the values to set")
    with report.row("closed: only clients with a credential post and read") as row:
        release.install(make_values(release, device, clinic))
        release.token = clinic.token
        for host in release.hosts.values():
            release.wait_until_routed(host)
            release.post_example(host)
        release.helm_test()
        for host in release.hosts.values():
            check_statuses(release, host, device)
        row.verdict = release.audit()
        row.notes.append("401 without a token, 403 without the scope; helm test has its own")
    with report.row("closed: a revoked token ends without a restart") as row:
        before = {pod.metadata.uid for pod in release.kube.pods("api")}
        release.upgrade(make_values(release, clinic))
        started = time.monotonic()
        wait_for(
            lambda: ask(release, device.token) <= {401, 429},
            "the token to be refused",
            REVOKED_SECONDS,
        )
        if {pod.metadata.uid for pod in release.kube.pods("api")} - before:
            raise ScenarioFailed("an API pod was replaced")
        release.post_example()
        row.verdict = release.audit()
        row.notes.append(f"refused by every pod {time.monotonic() - started:.0f} s after upgrade")


def check_statuses(release: Release, host: str, device: Client) -> None:
    """Check what is answered without a token, and to a device that may only post."""
    expected = dict.fromkeys(PROTECTED_PATHS, (401, 403)) | dict.fromkeys(PUBLIC, (200, 200))
    for path, statuses in expected.items():
        answers = tuple(
            release.request(path, host=host, token=token).status for token in ("", device.token)
        )
        if answers != statuses:
            raise ScenarioFailed(f"{host}{path}: {answers} instead of {statuses}")
    if (status := release.request("/api/usages", body=EXAMPLE, host=host, token="").status) != 401:
        raise ScenarioFailed(f"{host}: a post without a token was answered {status}")


def ask(release: Release, token: str) -> set[int]:
    """Return the statuses of posts with a token, so many that every pod answers one.

    429: this address has sent too many requests without a valid token.
    """
    statuses = set()
    for _ in range(20):
        sent = time.monotonic()
        answer = release.request("/api/usages", body=EXAMPLE, token=token)
        if answer.status == 201:
            release.add_example(answer.json()["id"], sent)
        statuses.add(answer.status)
    return statuses


SCENARIOS = (require_credentials,)

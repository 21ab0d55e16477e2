"""An external Redis with TLS gets a new password and a new CA, by the page's commands.

Each step ends by closing all connections: only a new one shows whether a pod can log in.
"""

import tempfile
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from e2e import certificates, servers
from e2e.kube import is_ready, wait_for
from e2e.measure import ScenarioFailed, require_short_outage
from e2e.release import SEED, Release
from e2e.report import Report, Row
from e2e.scenarios.external import SMALL, list_redis_pods
from e2e.scenarios.faults import describe_failures
from e2e.scenarios.operations import (
    RATE,
    RENEWED_SECONDS,
    STEADY_SECONDS,
    run_blocks,
    run_timed,
    shell,
)
from testkit.docs.runbook_shell import Shell

POD = "redis-0"
HOST = f"{POD}.redis"
AGAIN_SECONDS = 10.0
"""Five between two checks of the service, and the time of a new connection."""
TLS = ("valkey-cli", "-e", "--tls", "--insecure", "--no-auth-warning")
ADMINISTRATOR = (*TLS, "-a", servers.PASSWORD)


def values(site: Release) -> dict[str, Any]:
    """Return the values for the external Redis."""
    return {
        **site.routing_values(),
        **SMALL,
        "valkey": {"enabled": False},
        "externalRedis": {
            "host": HOST,
            "username": servers.USER,
            "existingSecret": servers.SECRET,
            "tls": {"enabled": True, "caSecret": servers.CA},
        },
    }


def start(site: Release, report: Report) -> None:
    """Make two authorities, start the server by the first, install."""
    with report.row("external Redis: one with TLS") as row, tempfile.TemporaryDirectory() as folder:
        old, new = (
            certificates.make_certificates(Path(folder) / entry, HOST) for entry in ("old", "new")
        )
        files = {
            "old.crt": old.certificate,
            "old.key": old.key,
            "new.crt": new.certificate,
            "new.key": new.key,
            "new-ca.crt": new.ca,
        }
        site.kube.apply(*servers.make_single(old.ca, files))
        wait_for(
            lambda: [is_ready(pod) for pod in list_redis_pods(site.kube)] == [True], "Redis", 60
        )
        site.install(values(site))
        site.wait_routed()
        site.helm_test()
        row.verdict = site.audit()


def set_server(site: Release, bash: Shell) -> None:
    """Set the page's variable for the server."""
    command = " ".join(ADMINISTRATOR)
    bash.settings["REDIS"] = f"kubectl -n {site.namespace} exec {POD} -- {command}"


def rotate_password(site: Release, report: Report) -> None:
    """Add a new password, wait until the pods have it, and remove the old one."""
    with report.row("external Redis's password rotated") as row, shell(site) as bash:
        set_server(site, bash)
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "redis-password"))
            wait_renewed(row, bash, "redis-password-seen")
            row.notes.append(run_timed(bash, "redis-password-old"))
            close_connections(row, bash)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = site.audit()
        if "WRONGPASS" not in (reply := try_old_password(site)):
            raise ScenarioFailed(f"with the old password: {reply}")
        require_short_outage(row.figures, AGAIN_SECONDS)


def close_connections(row: Row, bash: Shell) -> None:
    """Close the release's connections, and give it time to reconnect."""
    closed = int(run_blocks(bash, "redis-connect"))
    if not closed:
        raise ScenarioFailed("there was no connection to close")
    row.notes.append(f"{closed} connections closed")
    time.sleep(AGAIN_SECONDS)


def try_old_password(site: Release) -> str:
    """Return the server's reply to the user with the old password."""
    login = ("--user", servers.USER, "--pass", servers.PASSWORD)
    return run_on_server(site, *TLS, *login, "GET", "busyapi:{0}:seq")


def run_on_server(site: Release, *command: str) -> str:
    """Return the output and the errors of a command in the server's pod."""
    words = ("sh", "-c", '"$@" 2>&1', "sh", *command)
    return site.kube.run(POD, *words, check=False, container=servers.SERVER).decode()


def wait_renewed(row: Row, bash: Shell, mark: str) -> None:
    """Wait until all pods have the same new file, by the page's command."""
    began = time.monotonic()
    first = run_blocks(bash, mark)

    def is_renewed_everywhere() -> bool:
        answers = run_blocks(bash, mark).splitlines()
        return len(set(answers)) == 1 and answers[0] not in first

    wait_for(is_renewed_everywhere, f"{mark}: all pods have the same new file", RENEWED_SECONDS)
    row.notes.append(f"{mark}: all pods have it after {time.monotonic() - began:.0f} s")


def rotate_authority(site: Release, report: Report) -> None:
    """Trust both CAs, change the certificate, and remove the old CA."""
    with report.row("external Redis's CA rotated") as row, shell(site) as bash:
        set_server(site, bash)
        new = "new-ca.crt"
        trusted = site.kube.run(POD, "cat", f"/tls/{new}", container=servers.SERVER)
        (bash.folder / new).write_bytes(trusted)
        bash.settings |= {"NEW_CA": str(bash.folder / new)}
        bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
        with site.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "redis-ca"))
            wait_renewed(row, bash, "redis-ca-seen")
            row.notes.append(run_timed(bash, "redis-certificate"))
            close_connections(row, bash)
            run_blocks(bash, "redis-ca-old")
            wait_renewed(row, bash, "redis-ca-seen")
            close_connections(row, bash)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = site.audit()
        require_short_outage(row.figures, AGAIN_SECONDS)
        check_old_certificate(site, row, bash)


def check_old_certificate(site: Release, row: Row, bash: Shell) -> None:
    """Install the old certificate on the server again: no usage may be stored."""
    bash.settings |= {"CERTIFICATE": "/tls/old.crt", "KEY": "/tls/old.key"}
    for mark in ("redis-certificate", "redis-connect"):
        run_blocks(bash, mark)
    answer = site.request("/api/usages", body=SEED)
    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
        raise ScenarioFailed(f"with a certificate of the old CA: {answer}")
    row.notes.append(f"with the old CA's certificate: {answer.status} {answer.json()['detail']}")
    bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
    run_blocks(bash, "redis-certificate")
    wait_for(lambda: site.request("/api/usages/count").status == HTTPStatus.OK, "the API", 60)
    site.kube.wait_settled()


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    start,
    rotate_password,
    rotate_authority,
)

"""Give an external Redis with TLS a new password and a new CA, with the page's commands.

Each step ends by closing all connections, because only a new one shows whether a pod can log in.
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
from e2e.pages import run_blocks, run_timed
from e2e.release import EXAMPLE, Release
from e2e.report import Report, Row
from e2e.scenarios.external import SMALL, list_redis_pods
from e2e.scenarios.faults import describe_failures
from e2e.scenarios.operations import RATE, RENEWED_SECONDS, STEADY_SECONDS
from e2e.shell import open_shell
from testkit.docs.runbook_shell import Shell

POD = "redis-0"
HOST = f"{POD}.redis"
RECONNECT_SECONDS = 10.0
"""Five seconds between two checks of the API, and the time to connect."""
TLS = ("valkey-cli", "-e", "--tls", "--insecure", "--no-auth-warning")
ADMIN_LOGIN = (*TLS, "-a", servers.PASSWORD)


def make_values(release: Release) -> dict[str, Any]:
    """Return the values for the external Redis."""
    return {
        **release.routing_values(),
        **SMALL,
        "valkey": {"enabled": False},
        "externalRedis": {
            "host": HOST,
            "username": servers.USER,
            "existingSecret": servers.SECRET,
            "tls": {"enabled": True, "caSecret": servers.CA},
        },
    }


def install_release(release: Release, report: Report) -> None:
    """Create two CAs, start a server with a certificate of the first, and install."""
    with (
        report.row("external Redis: a server with TLS") as row,
        tempfile.TemporaryDirectory() as folder,
    ):
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
        release.kube.apply(*servers.make_single(old.ca, files))
        wait_for(
            lambda: [is_ready(pod) for pod in list_redis_pods(release.kube)] == [True], "Redis", 60
        )
        release.install(make_values(release))
        release.wait_until_routed()
        release.helm_test()
        row.verdict = release.audit()


def set_server(release: Release, bash: Shell) -> None:
    """Set the page's variable for the server."""
    command = " ".join(ADMIN_LOGIN)
    bash.settings["REDIS"] = f"kubectl -n {release.namespace} exec {POD} -- {command}"


def rotate_password(release: Release, report: Report) -> None:
    """Add a new password, wait until the pods have it, and remove the old one."""
    with (
        report.row("external Redis's password rotated") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        set_server(release, bash)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.notes.append(run_timed(bash, "redis-password"))
            wait_renewed(row, bash, "redis-password-seen")
            row.notes.append(run_timed(bash, "redis-password-old"))
            close_connections(row, bash)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        row.verdict = release.audit()
        if "WRONGPASS" not in (reply := try_old_password(release)):
            raise ScenarioFailed(f"with the old password: {reply}")
        require_short_outage(row.figures, RECONNECT_SECONDS)


def close_connections(row: Row, bash: Shell) -> None:
    """Close the release's connections, and give it time to reconnect."""
    closed = int(run_blocks(bash, "redis-connect"))
    if not closed:
        raise ScenarioFailed("there was no connection to close")
    row.notes.append(f"{closed} connections closed")
    time.sleep(RECONNECT_SECONDS)


def try_old_password(release: Release) -> str:
    """Return the server's reply to the user with the old password."""
    login = ("--user", servers.USER, "--pass", servers.PASSWORD)
    return run_on_server(release, *TLS, *login, "GET", "busyapi:{0}:seq")


def run_on_server(release: Release, *command: str) -> str:
    """Return the output and the errors of a command in the server's pod."""
    words = ("sh", "-c", '"$@" 2>&1', "sh", *command)
    return release.kube.run(POD, *words, check=False, container=servers.SERVER).decode()


def wait_renewed(row: Row, bash: Shell, mark: str) -> None:
    """Wait until the page's command shows the same new file in all pods."""
    began = time.monotonic()
    first = run_blocks(bash, mark)

    def is_renewed_everywhere() -> bool:
        answers = run_blocks(bash, mark).splitlines()
        return len(set(answers)) == 1 and answers[0] not in first

    wait_for(is_renewed_everywhere, f"{mark}: all pods have the same new file", RENEWED_SECONDS)
    row.notes.append(f"{mark}: all pods have the new file after {time.monotonic() - began:.0f} s")


def rotate_authority(release: Release, report: Report) -> None:
    """Trust both CAs, change the certificate, and remove the old CA."""
    with (
        report.row("external Redis's CA rotated") as row,
        open_shell(release, has_busyapi=True) as bash,
    ):
        set_server(release, bash)
        new = "new-ca.crt"
        trusted = release.kube.run(POD, "cat", f"/tls/{new}", container=servers.SERVER)
        (bash.folder / new).write_bytes(trusted)
        bash.settings |= {"NEW_CA": str(bash.folder / new)}
        bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
        with release.load(RATE) as load:
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
        row.verdict = release.audit()
        require_short_outage(row.figures, RECONNECT_SECONDS)
        check_old_certificate(release, row, bash)


def check_old_certificate(release: Release, row: Row, bash: Shell) -> None:
    """Reinstall the server's old certificate, and check that no usage is stored."""
    bash.settings |= {"CERTIFICATE": "/tls/old.crt", "KEY": "/tls/old.key"}
    for mark in ("redis-certificate", "redis-connect"):
        run_blocks(bash, mark)
    answer = release.request("/api/usages", body=EXAMPLE)
    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
        raise ScenarioFailed(f"with a certificate of the old CA: {answer}")
    row.notes.append(f"with the old CA's certificate: {answer.status} {answer.json()['detail']}")
    bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
    run_blocks(bash, "redis-certificate")
    wait_for(lambda: release.request("/api/usages/count").status == HTTPStatus.OK, "the API", 60)
    release.kube.wait_until_settled()


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (
    install_release,
    rotate_password,
    rotate_authority,
)

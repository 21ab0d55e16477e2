"""An external Redis with TLS gets a new password and a new CA, by the operations page's commands.

Each step ends with all connections closed: only a new one shows what a pod can log in with.
"""

import tempfile
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from e2e import certificates, servers
from e2e.kube import ready, wait_for
from e2e.measure import Broken, answered_again
from e2e.release import SEED, Release
from e2e.report import Report, Row
from e2e.scenarios.external import SMALL, redis
from e2e.scenarios.faults import failures
from e2e.scenarios.operations import (
    RATE,
    RENEWED_SECONDS,
    STEADY,
    do,
    seconds,
    shell,
)
from testkit.docs.runbook_shell import Shell

POD = "redis-0"
HOST = f"{POD}.redis"
AGAIN_SECONDS = 10.0
"""Five between two looks of the service, and what a new connection takes."""
TLS = ("valkey-cli", "-e", "--tls", "--insecure", "--no-auth-warning")
ADMINISTRATOR = (*TLS, "-a", servers.PASSWORD)


def values(site: Release) -> dict[str, Any]:
    """Values for it."""
    return {
        **site.routes(),
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
        old, new = (certificates.make(Path(folder) / entry, HOST) for entry in ("old", "new"))
        files = {
            "old.crt": old.certificate,
            "old.key": old.key,
            "new.crt": new.certificate,
            "new.key": new.key,
            "new-ca.crt": new.ca,
        }
        site.kube.apply(*servers.single(old.ca, files))
        wait_for(lambda: [ready(pod) for pod in redis(site.kube)] == [True], "Redis", 60)
        site.install(values(site))
        site.wait_routed()
        site.helm_test()
        row.verdict = site.audit()


def bash_for(site: Release, bash: Shell) -> None:
    """Name the server as the page does."""
    command = " ".join(ADMINISTRATOR)
    bash.settings["REDIS"] = f"kubectl -n {site.namespace} exec {POD} -- {command}"


def password(site: Release, report: Report) -> None:
    """Both are good, the pods have the new one, the old one ends."""
    with report.row("external Redis's password rotated") as row, shell(site) as bash:
        bash_for(site, bash)
        with site.load(RATE) as load:
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "redis-password"))
            renewed(row, bash, "redis-password-seen")
            row.notes.append(seconds(bash, "redis-password-old"))
            close(row, bash)
            row.figures = load.stop()
        row.notes += failures(row.figures)
        row.verdict = site.audit()
        if "WRONGPASS" not in (reply := with_old_password(site)):
            raise Broken(f"with the old password: {reply}")
        answered_again(row.figures, AGAIN_SECONDS)


def close(row: Row, bash: Shell) -> None:
    """Close the release's connections, and let it come back."""
    closed = int(do(bash, "redis-connect"))
    if not closed:
        raise Broken("there was no connection to close")
    row.notes.append(f"{closed} connections closed")
    time.sleep(AGAIN_SECONDS)


def with_old_password(site: Release) -> str:
    """Return what the server answers the user with the password that was."""
    login = ("--user", servers.USER, "--pass", servers.PASSWORD)
    return on_server(site, *TLS, *login, "GET", "busyapi:{0}:seq")


def on_server(site: Release, *command: str) -> str:
    """Return what a command prints in the server's pod, with what it complains of."""
    words = ("sh", "-c", '"$@" 2>&1', "sh", *command)
    return site.kube.run(POD, *words, check=False, container=servers.SERVER).decode()


def renewed(row: Row, bash: Shell, mark: str) -> None:
    """Wait, by the page's own look, until all pods have the same file, and it is another one."""
    began = time.monotonic()
    first = do(bash, mark)

    def same() -> bool:
        answers = do(bash, mark).splitlines()
        return len(set(answers)) == 1 and answers[0] not in first

    wait_for(same, f"{mark}: one answer of all pods, a new one", RENEWED_SECONDS)
    row.notes.append(f"{mark}: all pods have it after {time.monotonic() - began:.0f} s")


def authority(site: Release, report: Report) -> None:
    """Both are trusted, the server changes, the old one ends and is worth nothing then."""
    with report.row("external Redis's CA rotated") as row, shell(site) as bash:
        bash_for(site, bash)
        new = "new-ca.crt"
        trusted = site.kube.run(POD, "cat", f"/tls/{new}", container=servers.SERVER)
        (bash.folder / new).write_bytes(trusted)
        bash.settings |= {"NEW_CA": str(bash.folder / new)}
        bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
        with site.load(RATE) as load:
            time.sleep(STEADY)
            row.notes.append(seconds(bash, "redis-ca"))
            renewed(row, bash, "redis-ca-seen")
            row.notes.append(seconds(bash, "redis-certificate"))
            close(row, bash)
            do(bash, "redis-ca-old")
            renewed(row, bash, "redis-ca-seen")
            close(row, bash)
            row.figures = load.stop()
        row.notes += failures(row.figures)
        row.verdict = site.audit()
        answered_again(row.figures, AGAIN_SECONDS)
        distrusted(site, row, bash)


def distrusted(site: Release, row: Row, bash: Shell) -> None:
    """Install the old certificate on the server again: nothing may be stored by it."""
    bash.settings |= {"CERTIFICATE": "/tls/old.crt", "KEY": "/tls/old.key"}
    for mark in ("redis-certificate", "redis-connect"):
        do(bash, mark)
    answer = site.ask("/api/usages", body=SEED)
    if answer.status != HTTPStatus.SERVICE_UNAVAILABLE:
        raise Broken(f"with a certificate of the old CA: {answer}")
    row.notes.append(f"with the old CA's certificate: {answer.status} {answer.json()['detail']}")
    bash.settings |= {"CERTIFICATE": "/tls/new.crt", "KEY": "/tls/new.key"}
    do(bash, "redis-certificate")
    wait_for(lambda: site.ask("/api/usages/count").status == HTTPStatus.OK, "the API", 60)
    site.kube.wait_settled()


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (start, password, authority)

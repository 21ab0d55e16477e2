"""Renew the certificates of the Ingress and of the flushers' port under load."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http import HTTPStatus

from e2e.certificates import read_served_certificate
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.pages import run_blocks
from e2e.production import Production
from e2e.release import NAME
from e2e.report import Report
from testkit.history import Outcome
from testkit.readers import Readers

RATE = 60.0
STEADY_SECONDS = 5.0
READ_PAUSE_SECONDS = 0.2
SERVED_SECONDS = 60
RENEWED_SECONDS = 120
ROLES = ("flusher", "api")
SHOW_CERTIFICATE = f"""
import socket, ssl
files, host = "/etc/busyapi/archive-tls/", "{NAME}-flusher-0.{NAME}-flusher"
context = ssl.create_default_context(cafile=files + "ca.crt")
context.load_cert_chain(files + "tls.crt", files + "tls.key")
with (
    socket.create_connection((host, 9101), 5) as plain,
    context.wrap_socket(plain, server_hostname=host) as connection,
):
    print(ssl.DER_cert_to_PEM_cert(connection.getpeercert(True)), end="")
"""
"""Prints the certificate that a flusher shows to an API pod."""


def renew_ingress_certificate(production: Production, report: Report) -> None:
    """Renew the certificate while each post has a new connection, which verifies it."""
    release = production.release
    with report.row("certificate of the Ingress renewed") as row:
        tls = release.tls
        assert tls
        with release.load(RATE, keep_alive=False) as load:
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            files = production.renew_ingress_certificate()
            wait_for(
                lambda: read_served_certificate(release.port, tls) == files.certificate,
                "the new certificate",
                SERVED_SECONDS,
            )
            row.notes.append(f"served after {time.monotonic() - began:.1f} s")
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)


def renew_archive_certificates(production: Production, report: Report) -> None:
    """Renew both certificates of the flushers' port. No post and no read may fail."""
    release = production.release
    with report.row("certificates of the flushers' port renewed") as row:
        with release.load(RATE) as load, read_usages(production) as reads:
            time.sleep(STEADY_SECONDS)
            began = time.monotonic()
            renew_certificates(production)
            row.notes.append(f"in use after {time.monotonic() - began:.0f} s")
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes.append(f"reads: {describe(reads)}")
        row.verdict = release.audit()
        require_none_failed(row.figures)
        if set(reads) != {HTTPStatus.OK}:
            raise ScenarioFailed(f"reads: {reads}")


def replace_archive_authority(production: Production, report: Report) -> None:
    """Replace the CA of the flushers' port with the page's steps. No post may fail.

    The flusher restarts twice, so reads get 503 for a while.
    """
    release, bash = production.release, production.bash
    with report.row("CA of the flushers' port replaced") as row:
        old, current = bash.folder / "old-ca.crt", bash.folder / "archive-ca.crt"
        old.write_bytes(current.read_bytes())
        bash.settings |= {"OLD_CA": str(old), "NEW_CA": str(current)}
        with release.load(RATE) as load, read_usages(production) as reads:
            time.sleep(STEADY_SECONDS)
            run_blocks(bash, "archive-ca")
            run_blocks(bash, "archive-both-cas")
            release.kube.wait_until_settled()
            renew_certificates(production)
            run_blocks(bash, "archive-new-ca")
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes.append(f"reads: {describe(reads)}")
        row.verdict = release.audit()
        require_none_failed(row.figures)
        require_served(production)
        if not set(reads) <= {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}:
            raise ScenarioFailed(f"reads: {reads}")


@contextmanager
def read_usages(production: Production) -> Iterator[Counter[int]]:
    """Read archived usages all the time. Yield a count of the statuses, complete at the end."""
    release = production.release
    good = (request for request in release.history.requests if request.outcome is Outcome.OK)
    numbers = [next(good).ids[0] for _ in range(3)]
    headers = {"Host": release.host, "Authorization": f"Bearer {release.token}"}
    statuses: Counter[int] = Counter()
    reader = Readers(
        release.port,
        numbers,
        headers,
        threads=1,
        pause_seconds=READ_PAUSE_SECONDS,
        tls=release.tls,
    )
    try:
        with reader:
            yield statuses
    finally:
        statuses.update(read.status for read in reader.reads)


def describe(statuses: Counter[int]) -> str:
    """Return a note with the statuses of reads."""
    return ", ".join(f"{count} x {status or 'no answer'}" for status, count in statuses.items())


def renew_certificates(production: Production) -> None:
    """Create new certificates with the page's commands, and wait until all pods use them."""
    run_blocks(production.bash, "archive-certificates")
    run_blocks(production.bash, "secrets-now")
    wait_for(lambda: has_new_files(production), "the pods to have the new files", RENEWED_SECONDS)
    wait_for(lambda: is_served(production), "the flusher to show its new certificate")


def has_new_files(production: Production) -> bool:
    """Return whether the page's command shows the new files in all pods, and no other."""
    folder = production.bash.folder
    expected = {sha256((folder / f"{role}.crt").read_bytes()).hexdigest() for role in ROLES}
    lines = run_blocks(production.bash, "archive-certificates-seen").splitlines()
    return {line.split()[0] for line in lines} == expected


def is_served(production: Production) -> bool:
    """Return whether the flusher shows the newest certificate to each API pod."""
    kube, expected = production.release.kube, (production.bash.folder / "flusher.crt").read_text()
    return all(
        kube.run(pod.metadata.name, "python3", "-c", SHOW_CERTIFICATE).decode() == expected
        for pod in kube.list_ready_pods("api")
    )


def require_served(production: Production) -> None:
    """Check that the flusher shows a certificate of the only CA that API pods trust now.

    Raises:
        ScenarioFailed: It does not.
    """
    if not is_served(production):
        raise ScenarioFailed("the flusher does not show the certificate of the new CA")

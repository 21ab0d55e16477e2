"""Revoke a token, and rotate the key of the provider of JWTs, while other clients post."""

import time
from collections.abc import Sequence
from http import HTTPStatus

from e2e.kube import wait_for
from e2e.measure import Sample, ScenarioFailed, require_none_failed
from e2e.openloop import OpenLoop
from e2e.pages import run_blocks
from e2e.production import Production
from e2e.release import Release
from e2e.report import Report
from testkit.history import Outcome

RATE = 60.0
ENDED_RATE = 2.0
"""Posts a second of the client that is revoked. An address may send 60 bad credentials to a pod."""
STEADY_SECONDS = 3.0
QUIET_SECONDS = 10.0
"""After so long without a 201 each pod has refused the client several times."""
MAX_SECONDS = 60.0
"""How long a revoked credential may be accepted."""
WAIT_SECONDS = 150.0
REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS}
REVOKED, ROTATED = "device-8", "rotation-app"


def revoke_token(production: Production, report: Report) -> None:
    """Remove the table of a token. It ends in time, and no other client gets an error."""
    release = production.release
    with report.row("token revoked") as row:
        client, pods = production.find_client(REVOKED), list_api_pods(release)
        with release.load(RATE) as load, release.load(ENDED_RATE, clients=(client,)) as ended:
            time.sleep(STEADY_SECONDS)
            since = time.monotonic()
            del production.entries[REVOKED]
            production.store_tokens()
            run_blocks(production.bash, "secrets-now")
            wait_until_ended(ended, since)
            ended.stop()
            row.figures = load.stop()
        seconds = measure_end(ended.samples, since)
        row.notes.append(f"refused by every pod {seconds:.1f} s after the change of the Secret")
        row.verdict = release.audit()
        require_none_failed(row.figures)
        if list_api_pods(release) != pods:
            raise ScenarioFailed("an API pod was replaced")


def rotate_provider_key(production: Production, report: Report) -> None:
    """Publish a second key and sign with it, then remove the first one.

    A token of the new key is accepted at once. A token of the removed key ends in time.
    """
    release, provider = production.release, production.provider
    with report.row("key of the provider rotated") as row:
        jwt, device = release.clients
        old = production.issue_client(ROTATED, "write")
        with release.load(RATE, clients=(jwt, old, device)) as load:
            time.sleep(STEADY_SECONDS)
            provider.key_names = (*provider.key_names, "second")
            provider.restart()
            new = production.issue_client(ROTATED, "write")
            load.clients = (new, jwt, old, device)
            time.sleep(STEADY_SECONDS)
            production.start_clients()
            load.clients = (new, *release.clients)
            with release.load(ENDED_RATE, clients=(old,)) as ended:
                time.sleep(STEADY_SECONDS)
                since = time.monotonic()
                provider.key_names = provider.key_names[-1:]
                provider.restart()
                wait_until_ended(ended, since)
                ended.stop()
            row.figures = load.stop()
        seconds = measure_end(ended.samples, since)
        row.notes.append(f"tokens of the old key refused {seconds:.1f} s after its removal")
        row.verdict = release.audit()
        require_none_failed(row.figures)


def list_api_pods(release: Release) -> set[str]:
    """Return the ids of the API's pods."""
    return {pod.metadata.uid for pod in release.kube.pods("api")}


def find_last_accepted(samples: Sequence[Sample]) -> float:
    """Return when the last request was answered with 201, 0 without one."""
    return max((sample.answered for sample in samples if sample.outcome is Outcome.OK), default=0.0)


def wait_until_ended(load: OpenLoop, since: float) -> None:
    """Wait until no pod accepts the credential of a load."""

    def has_ended() -> bool:
        last = max(since, find_last_accepted(list(load.samples)))
        return time.monotonic() - last > QUIET_SECONDS

    wait_for(has_ended, "the credential to be refused", WAIT_SECONDS)


def measure_end(samples: Sequence[Sample], since: float) -> float:
    """Return how long after its end a credential was accepted.

    Raises:
        ScenarioFailed: It was refused before, was accepted for too long, or got another status.
    """
    seconds = find_last_accepted(samples) - since
    failed = [sample for sample in samples if sample.outcome is not Outcome.OK]
    statuses = {sample.status for sample in failed}
    if not failed or not statuses <= REFUSED or min(s.answered for s in failed) < since:
        raise ScenarioFailed(f"{len(failed)} of {len(samples)} failed, with {statuses}")
    if seconds > MAX_SECONDS:
        raise ScenarioFailed(f"it was accepted for {seconds:.0f} s")
    return max(0.0, seconds)

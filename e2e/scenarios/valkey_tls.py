"""Turn on TLS to the bundled Valkey under load, then replace its CA and certificate.

The steps are those of docs/how-to. A rotation fails no request, also for a pod that connects while
others still have the former files.
"""

import time
from collections.abc import Callable

from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed, require_short_outage
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.faults import describe_failures
from e2e.scenarios.install import list_api_pods
from e2e.scenarios.operations import FLUSHER, RATE, RENEWED_SECONDS, SMALL, STEADY_SECONDS

OUTAGE_SECONDS = 60.0
SERVED = f"import ssl; print(ssl.get_server_certificate(('{NAME}-valkey', 6379)))"


def read_certificate(release: Release) -> bytes:
    """Return the certificate that a new connection to Valkey gets."""
    return release.kube.run(FLUSHER, "python", "-c", SERVED)


def turn_on(release: Release, report: Report) -> None:
    """Turn TLS on: Valkey and its clients are replaced."""
    with report.row("TLS to the bundled Valkey turned on") as row:
        release.install({**release.routing_values(), **SMALL})
        release.wait_until_routed()
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade({"valkey": {"tls": {"enabled": True}}})
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.notes += describe_failures(row.figures)
        release.helm_test()
        row.verdict = release.audit()
        if b"BEGIN CERTIFICATE" not in read_certificate(release):
            raise ScenarioFailed("Valkey serves no certificate")
        require_short_outage(row.figures, OUTAGE_SECONDS)


def rotate(release: Release, report: Report) -> None:
    """Replace CA and certificate. No request may fail, and no pod is replaced."""
    with report.row("certificate of the bundled Valkey rotated") as row:
        before, pods = read_certificate(release), list_pods(release)
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            release.upgrade({"valkey": {"tls": {"rotation": 2}}})
            began = time.monotonic()
            wait_for(
                lambda: read_certificate(release) != before, "the new certificate", RENEWED_SECONDS
            )
            row.notes.append(f"served after {time.monotonic() - began:.0f} s")
            if list_pods(release) != pods:
                raise ScenarioFailed(f"replaced: {pods - list_pods(release)}")
            # A new pod connects, and trusts the new certificate.
            release.kube.delete_pod(min(list_api_pods(release)))
            release.kube.wait_until_settled()
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)


def list_pods(release: Release) -> set[str]:
    """Return the unique ids of all pods."""
    return {pod.metadata.uid for pod in release.kube.pods()}


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (turn_on, rotate)

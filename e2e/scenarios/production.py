"""Install values-production.yaml, and repeat the scenarios of other parts on it.

Requests have a JWT of a real provider and a token in turn, and come by an Ingress with TLS.
"""

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import yaml

from e2e.certificates import Authority
from e2e.jwt_provider import JwtProvider, has_node
from e2e.kube import is_ready
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.production import DEVICE, Production
from e2e.relay import relay
from e2e.release import CHART, Release
from e2e.report import Report, Row
from e2e.scenarios import autoscale, faults, install, renewal, revocation, valkey_tls
from e2e.scenarios.boundaries import HIDDEN
from e2e.scenarios.closed import Client, check_statuses
from testkit.http1 import fetch

PREFIX = "production: "
RATE = 60.0
LOAD_SECONDS = 8.0
SMALL_REQUEST = "80m"
BY_CPU = autoscale.Needed(4, 20, seconds=30, first_seconds=30)
BY_REQUESTS = autoscale.Needed(7, 8, seconds=20, first_seconds=20)
"""Three pods need a fourth at a higher rate than two a third. So the HPA sees later that the load
has risen, and then asks for nearly all pods at once."""


def run_in_production(release: Release, report: Report) -> None:
    """Install, repeat the scenarios of other parts, and renew credentials and certificates."""
    if release.target.program is None or not has_node():
        with report.row(f"{PREFIX}install") as row:
            row.skipped = True
            row.notes.append("needs node, npm, and pods that reach this machine (E2E_CLUSTER)")
        return
    with ExitStack() as stack:
        stack.enter_context(report.prefixed(PREFIX))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="busyapi-e2e-")))
        authority = Authority(folder / "authority")
        address = release.kube.node_addresses()[0]
        provider = stack.enter_context(JwtProvider(folder / "provider", address, authority))
        production = Production(release, folder / "work", provider, authority)
        stack.callback(production.clean_up)
        install_production(production, report)
        for scenario in REPEATED:
            scenario(release, report)
        for own in OWN:
            own(production, report)


def install_production(production: Production, report: Report) -> None:
    """Create the Secrets, install, and check who may do what."""
    release = production.release
    with report.row("install, restricted namespace, Ingress with TLS, JWT and token") as row:
        production.create_token(DEVICE, "write")
        production.create_token(revocation.REVOKED, "write")
        production.prepare()
        release.install(production.make_values())
        production.start_clients()
        release.wait_until_routed()
        row.notes.append(describe_objects(release))
        check_access(release, production.tokens[DEVICE])
        with release.load(RATE) as load:
            time.sleep(LOAD_SECONDS)
            row.figures = load.stop()
        release.helm_test()
        row.verdict = release.audit()
        require_none_failed(row.figures)
        check_read(release, row)
    with report.row("helm test from outside, by TLS") as row:
        address = release.kube.node_addresses()[0]
        with relay(address, release.port) as port:
            url, way = f"https://{release.host}", f"{address}:{port}"
            # No public authority knows the CA.
            outside = {"enabled": True, "url": url, "connectTo": way, "verifyCertificate": False}
            release.upgrade({"tests": {"outside": outside}})
            release.helm_test()
        release.upgrade({"tests": {"outside": {"enabled": False}}})
        row.verdict = release.audit()


def describe_objects(release: Release) -> str:
    """Return a note with the objects that protect and scale the release.

    Raises:
        ScenarioFailed: One of them is missing.
    """
    labels = release.kube.core.read_namespace(release.namespace).metadata.labels
    pods = release.kube.pods()
    path = f"namespaces/{release.namespace}"
    counts = {
        kind: len(release.kube.get_json(f"/apis/{group}/{path}/{kind}")["items"])
        for group, kind in (
            ("networking.k8s.io/v1", "networkpolicies"),
            ("autoscaling/v2", "horizontalpodautoscalers"),
            ("policy/v1", "poddisruptionbudgets"),
        )
    }
    unready = [pod.metadata.name for pod in pods if not is_ready(pod)]
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted" or unready:
        raise ScenarioFailed(f"labels {labels}; not ready: {unready}")
    if not all(counts.values()):
        raise ScenarioFailed(str(counts))
    return f"{len(pods)} pods; " + ", ".join(f"{count} {kind}" for kind, count in counts.items())


def check_access(release: Release, token: str) -> None:
    """Check what is answered with and without a credential, and without TLS.

    Raises:
        ScenarioFailed: Something is open that must not be.
    """
    check_statuses(release, release.host, Client(DEVICE, ("write",), token))
    for path in HIDDEN:
        if (status := release.request(path).status) != HTTPStatus.NOT_FOUND:
            raise ScenarioFailed(f"{path} answers {status}")
    headers = {"Host": release.host, "Authorization": f"Bearer {release.token}"}
    answer = fetch(release.target.port, "/api/usages/count", headers=headers)
    if answer.status == HTTPStatus.OK:
        raise ScenarioFailed("it is served without TLS")


def check_read(release: Release, row: Row) -> None:
    """Read an archived usage: it comes from a flusher by TLS, after a record of the audit trail."""
    number = release.history.requests[0].ids[0]
    if (answer := release.request(f"/api/usages/{number}")).status != HTTPStatus.OK:
        raise ScenarioFailed(f"usage {number}: {answer}")
    row.notes.append(f"usage {number}, from the archive: {answer.status}")


def scale_by_cpu(release: Release, report: Report) -> None:
    """Scale on CPU, as the file does; with its CPU request, this machine could not send enough."""
    scaling = {"behavior": {"scaleDown": autoscale.FAST_SCALE_DOWN}}
    release.upgrade({"autoscaling": scaling, "resources": {"requests": {"cpu": SMALL_REQUEST}}})
    with report.row("autoscaling on CPU alone") as row:
        autoscale.measure_scaling(release, report, row, "production-cpu", BY_CPU)
    default = yaml.safe_load((CHART / "values.yaml").read_text())["resources"]["requests"]["cpu"]
    release.upgrade({"resources": {"requests": {"cpu": default}}})


def scale_by_requests(release: Release, report: Report) -> None:
    """Scale on requests a second too. The file leaves it out, because it needs an adapter."""
    scaling = {"targetRequestsPerSecond": autoscale.REQUESTS_PER_POD}
    release.upgrade({"autoscaling": scaling})
    autoscale.scale_by_requests(release, report, picture="production", needed=BY_REQUESTS)


REPEATED: tuple[Callable[[Release, Report], None], ...] = (
    install.upgrade,
    install.roll_back,
    *(scenario for scenario in faults.SCENARIOS if scenario is not faults.install_release),
    scale_by_cpu,
    scale_by_requests,
    valkey_tls.rotate,
)
OWN: tuple[Callable[[Production, Report], None], ...] = (
    revocation.revoke_token,
    revocation.rotate_provider_key,
    renewal.renew_ingress_certificate,
    renewal.renew_archive_certificates,
    renewal.replace_archive_authority,
)
SCENARIOS = (run_in_production,)

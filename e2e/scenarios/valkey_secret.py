"""Run three bundled Valkey servers with passwords of your own, and with their exporters."""

import json
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable
from hashlib import sha256
from secrets import token_hex
from typing import Any

from e2e import environment, images
from e2e.kube import wait_for
from e2e.measure import ScenarioFailed, require_none_failed
from e2e.release import NAME, Release
from e2e.report import Report
from e2e.scenarios.valkey_ha import (
    RATE,
    SERVERS,
    STEADY_SECONDS,
    find_primary,
    kill_primary,
    make_values,
    require_no_refusal,
    skip_without_nodes,
    wait_until_complete,
)
from testkit.chart.rendering import find_object, render

SECRET = "own-logins"
EXPORTER_PORT = 9121
EXPORTER_SECONDS = 60.0
PREFIX = "three Valkey servers with an existing Secret: "


def make_secret() -> dict[str, Any]:
    """Return the Secret that the page describes: the chart's files, with digests of new passwords.

    Raises:
        ScenarioFailed: A digest is in no file.
    """
    values = {"valkey": {"replicas": SERVERS, "metrics": {"enabled": True}}}
    rendered = find_object(render(values), "Secret", f"{NAME}-valkey")["data"]
    texts = {key: b64decode(value).decode() for key, value in rendered.items()}
    for key in [key for key in texts if key.endswith("-password")]:
        old, new = texts[key], token_hex(20)
        digests = [sha256(password.encode()).hexdigest() for password in (old, new)]
        if not any(digests[0] in text for text in texts.values()):
            raise ScenarioFailed(f"no file has the digest of {key}")
        texts = {
            name: text.replace(old, new).replace(digests[0], digests[1])
            for name, text in texts.items()
        }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET},
        "data": {key: b64encode(text.encode()).decode() for key, text in texts.items()},
    }


def install_release(release: Release, report: Report) -> None:
    """Install three servers that take their logins from an existing Secret."""
    with report.row(f"{PREFIX}installed, with exporters") as row:
        if skip_without_nodes(release, row):
            return
        tag = environment.exporter_image()
        images.build_exporter(release.target, tag, present=release.kube.has_image(tag))
        release.kube.apply(make_secret())
        values = make_values(release, SERVERS)
        own = {"auth": {"existingSecret": SECRET}, "metrics": {"enabled": True}}
        release.install(values | {"valkey": values["valkey"] | own})
        if release.kube.exists(f"/api/v1/namespaces/{release.namespace}/secrets/{NAME}-valkey"):
            raise ScenarioFailed("the chart made a Secret of its own")
        wait_until_complete(release)
        release.wait_until_routed()
        release.helm_test()
        with release.load(RATE) as load:
            time.sleep(STEADY_SECONDS)
            row.figures = load.stop()
        row.verdict = release.audit()
        require_none_failed(row.figures)
        require_no_refusal(release)


def lose_primary(release: Release, report: Report) -> None:
    """Kill the primary. Then each exporter reports the role of its own server.

    An exporter is asked last: it asks a server for its slow commands, which is refused.
    """
    with report.prefixed(PREFIX):
        kill_primary(release, report)
    with report.row(f"{PREFIX}each exporter reports its server") as row:
        row.notes.append(wait_for_exporters(release))


def wait_for_exporters(release: Release) -> str:
    """Wait until the exporters report one primary with all replicas; return what they report."""

    def is_reported() -> bool:
        expected = dict.fromkeys(range(SERVERS), "slave")
        expected[int(find_primary(release).rpartition("-")[2] or -1)] = "master"
        return read_roles(release) == expected

    wait_for(is_reported, "the exporters", EXPORTER_SECONDS)
    return f"roles by exporter: {json.dumps(read_roles(release))}"


def read_roles(release: Release) -> dict[int, str]:
    """Return, by number, the role of each server that its exporter reaches."""
    roles = {}
    for pod in release.kube.list_ready_pods("valkey-exporter"):
        text = release.kube.get(pod.metadata.name, EXPORTER_PORT, "/metrics")
        role = re.search(r'^redis_instance_info\{.*role="(\w+)"', text, re.MULTILINE)
        if role and re.search(r"^redis_up 1$", text, re.MULTILINE):
            roles[int(pod.metadata.name.rpartition("-")[2])] = role[1]
    return roles


SCENARIOS: tuple[Callable[[Release, Report], None], ...] = (install_release, lose_primary)

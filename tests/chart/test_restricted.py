"""Every pod of every mode complies with the Pod Security Standard `restricted`."""

from pathlib import Path
from typing import Any

import pytest

from testkit.chart.pod_security import violations
from testkit.chart.rendering import MODES, Json, mode_name, pods, render, replace_at, values_of

GOOD: Json = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "ports": [{"containerPort": 1}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 1}},
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            },
        }
    ],
    "volumes": [{"name": "v", "emptyDir": {}}],
}
POD = "securityContext"
CONTAINER = "containers.0.securityContext"
BAD: list[tuple[str, Any, str]] = [
    ("hostNetwork", True, "hostNetwork"),
    ("hostPID", True, "hostPID"),
    ("hostIPC", True, "hostIPC"),
    ("volumes.0.hostPath", {"path": "/"}, "volume v: hostPath"),
    (f"{POD}.sysctls", [{"name": "kernel.msgmax", "value": "1"}], "sysctl kernel.msgmax"),
    (f"{POD}.runAsNonRoot", None, "c: runAsNonRoot is not set"),
    (f"{POD}.runAsUser", 0, "runAsUser"),
    (f"{POD}.seccompProfile", None, "c: seccompProfile is not set"),
    (f"{POD}.seccompProfile.type", "Unconfined", "seccompProfile"),
    (f"{POD}.windowsOptions", {"hostProcess": True}, "hostProcess"),
    (f"{CONTAINER}.runAsNonRoot", False, "c: runAsNonRoot"),
    (f"{CONTAINER}.runAsUser", 0, "c: runAsUser"),
    (f"{CONTAINER}.privileged", True, "c: privileged"),
    (f"{CONTAINER}.allowPrivilegeEscalation", None, "c: allowPrivilegeEscalation"),
    (f"{CONTAINER}.allowPrivilegeEscalation", True, "c: allowPrivilegeEscalation"),
    (f"{CONTAINER}.capabilities", None, "c: capabilities are not dropped"),
    (f"{CONTAINER}.capabilities.drop", ["NET_RAW"], "c: capabilities are not dropped"),
    (f"{CONTAINER}.capabilities.add", ["SYS_ADMIN"], "c: capabilities are added"),
    (f"{CONTAINER}.procMount", "Unmasked", "c: procMount"),
    (f"{CONTAINER}.seLinuxOptions", {"type": "spc_t"}, "c: seLinuxOptions"),
    (f"{CONTAINER}.appArmorProfile", {"type": "Unconfined"}, "c: appArmorProfile"),
    ("containers.0.ports.0.hostPort", 80, "c: hostPort"),
    ("containers.0.livenessProbe.httpGet.host", "elsewhere", "c: a probe or hook names a host"),
    ("containers.0.lifecycle", {"preStop": {"tcpSocket": {"host": "x"}}}, "names a host"),
]


@pytest.mark.parametrize("mode", MODES, ids=mode_name)
def test_every_pod_is_restricted(mode: Path) -> None:
    violations_by_pod = {
        name: violations(pod["spec"]) for name, pod in pods(render(values_of(mode)))
    }
    assert violations_by_pod
    assert not any(violations_by_pod.values()), violations_by_pod


def test_good_pod_has_no_violation() -> None:
    assert violations(GOOD) == []


@pytest.mark.parametrize(("path", "value", "message"), BAD)
def test_each_violation_is_found(path: str, value: Any, message: str) -> None:
    assert message in " ".join(violations(replace_at(GOOD, path, value)))


@pytest.mark.parametrize("kind", ["initContainers", "ephemeralContainers"])
def test_every_kind_of_container_is_checked(kind: str) -> None:
    assert violations(GOOD | {kind: [{"name": "other"}]})

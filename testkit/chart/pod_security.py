"""Check pods against the Pod Security Standard `restricted`, like the admission of the API server.

This follows the text of the standard for Linux pods. The tests on a cluster use the real admission.
"""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
SECCOMP = {"RuntimeDefault", "Localhost"}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
HANDLERS = ("livenessProbe", "readinessProbe", "startupProbe")


def violations(pod: Json) -> list[str]:
    """Return the violations in a pod's spec, with the container of each."""
    messages = list(find_pod_violations(pod))
    for container in containers(pod):
        messages += (
            f"{container['name']}: {violation}"
            for violation in find_container_violations(container, pod)
        )
    return messages


def containers(pod: Json) -> Iterator[Json]:
    """Yield the containers of all three lists."""
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        yield from pod.get(kind) or []


def find_pod_violations(pod: Json) -> Iterator[str]:
    """Yield the violations of the pod itself."""
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes") or []:
        for kind in volume.keys() - {"name"} - VOLUMES:
            yield f"volume {volume['name']}: {kind}"
    context = pod.get("securityContext") or {}
    for sysctl in context.get("sysctls") or []:
        if sysctl["name"] not in SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from find_context_violations(context)


def find_context_violations(context: Json) -> Iterator[str]:
    """Yield the violations that the securityContext of a pod and of a container can have."""
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot"
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if (context.get("appArmorProfile") or {}).get("type") == "Unconfined":
        yield "appArmorProfile"
    selinux = context.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in SELINUX or selinux.get("user") or selinux.get("role"):
        yield "seLinuxOptions"
    if (context.get("windowsOptions") or {}).get("hostProcess"):
        yield "hostProcess"
    if (seccomp := context.get("seccompProfile")) and seccomp["type"] not in SECCOMP:
        yield "seccompProfile"


def find_container_violations(container: Json, pod: Json) -> Iterator[str]:
    """Yield the violations of a container. Its pod can set two of the fields instead."""
    context = container.get("securityContext") or {}
    pod_context = pod.get("securityContext") or {}
    yield from find_context_violations(context)
    if not context.get("runAsNonRoot", pod_context.get("runAsNonRoot")):
        yield "runAsNonRoot is not set"
    if not context.get("seccompProfile", pod_context.get("seccompProfile")):
        yield "seccompProfile is not set"
    if context.get("privileged"):
        yield "privileged"
    if context.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if context.get("procMount", "Default") != "Default":
        yield "procMount"
    yield from find_capability_violations(context.get("capabilities") or {})
    yield from find_host_violations(container)


def find_capability_violations(capabilities: Json) -> Iterator[str]:
    """Yield the violations of capabilities: all must be dropped, and one may be added."""
    if "ALL" not in (capabilities.get("drop") or []):
        yield "capabilities are not dropped"
    if set(capabilities.get("add") or []) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"


def find_host_violations(container: Json) -> Iterator[str]:
    """Yield ports of the node, and probes or hooks that name another host."""
    for port in container.get("ports") or []:
        if port.get("hostPort"):
            yield "hostPort"
    handlers = [container.get(name) or {} for name in HANDLERS]
    handlers += (container.get("lifecycle") or {}).values()
    for handler in handlers:
        if any((handler.get(kind) or {}).get("host") for kind in ("httpGet", "tcpSocket")):
            yield "a probe or hook names a host"

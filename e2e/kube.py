"""One namespace of a cluster, through the official Python client."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from kubernetes import client, config, utils
from kubernetes.client import ApiException
from kubernetes.stream import stream

from testkit.waiting import wait_until

Json = dict[str, Any]

REQUEST_SECONDS = 20
EXEC_SECONDS = 120
RESTRICTED = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "pod-security.kubernetes.io/enforce-version": "latest",
}


class ExecFailed(Exception):
    """A command in a pod failed. The message has its output."""


class Kube:
    """The scenarios' requests to the API server."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.namespace = namespace
        # Any: in this client's types every member is optional.
        self.api: Any = _connect(kubeconfig)
        self.core: Any = client.CoreV1Api(self.api)
        self.apps: Any = client.AppsV1Api(self.api)
        # `stream` replaces its client's request method, so nothing else may use that client.
        self._exec: Any = client.CoreV1Api(_connect(kubeconfig))

    def cluster_id(self) -> str:
        """Return an id that is unique to this cluster."""
        return str(self.core.read_namespace("kube-system").metadata.uid)

    def version(self) -> str:
        """Return Kubernetes' version."""
        return str(client.VersionApi(self.api).get_code().git_version)

    def nodes(self) -> list[Any]:
        """Return the nodes that are ready and accept pods."""
        return [
            node
            for node in self.core.list_node().items
            if not node.spec.unschedulable and is_ready(node) and not _is_tainted(node)
        ]

    def node_addresses(self) -> list[str]:
        """Return the addresses of these nodes within the cluster."""
        return [
            address.address
            for node in self.nodes()
            for address in node.status.addresses
            if address.type == "InternalIP"
        ]

    def has_image(self, tag: str) -> bool:
        """Return whether every node has an image."""
        return all(
            any(tag in (image.names or []) for image in node.status.images or [])
            for node in self.core.list_node().items
        )

    def create_namespace(self, labels: dict[str, str] | None = None) -> None:
        """Create the namespace, which enforces `restricted`."""
        meta = client.V1ObjectMeta(name=self.namespace, labels={**RESTRICTED, **(labels or {})})
        self.core.create_namespace(client.V1Namespace(metadata=meta))

    def delete_namespace(self, *, seconds: float = 120) -> None:
        """Delete the namespace with its contents, and wait until it is deleted."""
        pods = f"pods of {self.namespace}"
        for pod in self.pods():
            self.delete_pod(pod.metadata.name, grace=1)
        self.core.delete_namespace(self.namespace)
        if seconds:
            wait_until(self._is_deleted, f"{pods} to end", seconds=seconds, every=0.5)

    def _is_deleted(self) -> bool:
        try:
            self.core.read_namespace(self.namespace)
        except ApiException as error:
            return bool(error.status == HTTPStatus.NOT_FOUND)
        return False

    def apply(self, *objects: Json) -> None:
        """Create plain objects."""
        create: Any = utils.create_from_dict
        for entry in objects:
            create(self.api, entry, namespace=self.namespace)

    def pods(self, component: str = "") -> list[Any]:
        """Return the pods of the namespace, or of one component of the release."""
        selector = f"app.kubernetes.io/component={component}" if component else ""
        return list(
            self.core.list_namespaced_pod(
                self.namespace, label_selector=selector, _request_timeout=REQUEST_SECONDS
            ).items
        )

    def list_ready_pods(self, component: str) -> list[Any]:
        """Return the pods of a component that are ready and not terminating."""
        return [pod for pod in self.pods(component) if is_ready(pod) and not is_terminating(pod)]

    def is_settled(self, components: tuple[str, ...] = ("api", "flusher", "valkey")) -> bool:
        """Return whether every workload has all its pods and no other, up to date and ready."""
        is_complete = all(map(_is_complete, self._workloads()))
        pods = [pod for part in components for pod in self.pods(part)]
        return is_complete and all(is_ready(pod) and not is_terminating(pod) for pod in pods)

    def _workloads(self) -> list[Any]:
        return [
            *self.apps.list_namespaced_deployment(self.namespace).items,
            *self.apps.list_namespaced_stateful_set(self.namespace).items,
        ]

    def wait_until_settled(self, seconds: float = 180) -> None:
        """Wait until the namespace is settled."""
        wait_until(self.is_settled, f"{self.namespace} to settle", seconds=seconds, every=0.5)

    def delete_pod(self, name: str, *, grace: int | None = None) -> None:
        """Delete a pod. Grace 0 kills it at once."""
        options = client.V1DeleteOptions(grace_period_seconds=grace)
        try:
            self.core.delete_namespaced_pod(name, self.namespace, body=options)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def evict(self, pod: Any) -> bool:
        """Evict a pod as a drain does; return False if a disruption budget forbids it now."""
        meta = client.V1ObjectMeta(name=pod.metadata.name, namespace=pod.metadata.namespace)
        try:
            self.core.create_namespaced_pod_eviction(
                pod.metadata.name, pod.metadata.namespace, client.V1Eviction(metadata=meta)
            )
        except ApiException as error:
            if error.status == HTTPStatus.TOO_MANY_REQUESTS:
                return False
            if error.status != HTTPStatus.NOT_FOUND:
                raise
        return True

    def cordon(self, node: str, *, on: bool) -> None:
        """Cordon or uncordon a node."""
        self.core.patch_node(node, {"spec": {"unschedulable": on}})

    def run(
        self, pod: str, *command: str, container: str | None = None, check: bool = True
    ) -> bytes:
        """Run a command in a pod, by default in its first container, and return its output.

        Raises:
            ExecFailed: The exit code is not 0.
        """
        if container is None:
            container = self.core.read_namespaced_pod(pod, self.namespace).spec.containers[0].name
        answer = stream(
            self._exec.connect_get_namespaced_pod_exec,
            pod,
            self.namespace,
            command=list(command),
            container=container,
            stdout=True,
            stderr=True,
            binary=True,
            _preload_content=False,
            _request_timeout=REQUEST_SECONDS,
        )
        answer.run_forever(timeout=EXEC_SECONDS)
        out, err, code = answer.read_stdout(), answer.read_stderr(), answer.returncode
        answer.close()
        if check and code != 0:
            raise ExecFailed(f"{pod}: {command[:3]} ended with {code}: {(out + err)[-2000:]!r}")
        return bytes(out)

    def get(self, pod: str, port: int, path: str) -> str:
        """GET a path from a pod through the API server."""
        return self._get(f"/api/v1/namespaces/{self.namespace}/pods/{pod}:{port}/proxy{path}")

    def get_json(self, path: str, **query: str) -> Any:
        """GET a path of the API server that answers with JSON."""
        return json.loads(self._get(path, **query))

    def exists(self, path: str) -> bool:
        """Return whether an object exists."""
        try:
            self._get(path)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            return False
        return True

    def delete(self, path: str) -> None:
        """Delete an object, if it exists."""
        try:
            self._call("DELETE", path)
        except ApiException as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _get(self, path: str, **query: str) -> str:
        return self._call("GET", path, **query)

    def _call(self, method: str, path: str, **query: str) -> str:
        request = self.api.param_serialize(
            method, path, query_params=list(query.items()), auth_settings=["BearerToken"]
        )
        answer = self.api.call_api(*request, _request_timeout=REQUEST_SECONDS)
        answer.read()
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ApiException(status=answer.status, reason=path)
        return str(answer.data.decode())


def _connect(kubeconfig: Path) -> client.ApiClient:
    settings = client.Configuration()
    load: Any = config.load_kube_config
    load(str(kubeconfig), client_configuration=settings)
    return client.ApiClient(settings)


def is_ready(document: Any) -> bool:
    """Return whether a pod or node has the condition Ready."""
    conditions = document.status.conditions or []
    return any(condition.type == "Ready" and condition.status == "True" for condition in conditions)


def is_terminating(pod: Any) -> bool:
    """Return whether a pod is being deleted."""
    return pod.metadata.deletion_timestamp is not None


def _is_tainted(node: Any) -> bool:
    return any(taint.effect in {"NoSchedule", "NoExecute"} for taint in node.spec.taints or [])


def _is_complete(workload: Any) -> bool:
    replicas = 1 if workload.spec.replicas is None else workload.spec.replicas
    status = workload.status
    return (
        (status.observed_generation or 0) >= workload.metadata.generation
        and (status.ready_replicas or 0) == replicas
        and (status.updated_replicas or 0) == replicas
        and (status.replicas or 0) == replicas
    )


def format_now() -> str:
    """Return the current time for reports."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait as `wait_until` does, with pauses that spare the API server."""
    return wait_until(condition, what, seconds=seconds, every=0.5)

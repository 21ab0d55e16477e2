"""Fields of existing objects that the API server refuses to change.

Helm patches objects in place, so a change of such a field fails an upgrade halfway. The only way
out is to delete the object, with its pods or its data.
"""

from typing import Any

Json = dict[str, Any]

IMMUTABLE_DATA = "data of an immutable object"

FIELDS = {
    "Deployment": ["spec.selector"],
    "Service": ["spec.clusterIP", "spec.clusterIPs"],
    "Secret": ["type"],
    "Job": ["spec.selector", "spec.template", "spec.completionMode"],
    "PersistentVolumeClaim": [
        "spec.accessModes",
        "spec.selector",
        "spec.storageClassName",
        "spec.volumeMode",
        "spec.volumeName",
        "spec.dataSource",
    ],
    "RoleBinding": ["roleRef"],
    "ClusterRoleBinding": ["roleRef"],
    "StorageClass": ["provisioner", "parameters", "reclaimPolicy", "volumeBindingMode"],
    "PriorityClass": ["value", "preemptionPolicy"],
}
# All other fields of a StatefulSet are immutable on the oldest supported Kubernetes version.
STATEFUL_SET_MAY_CHANGE = {
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "template",
    "updateStrategy",
}
# Defaults of the API server.
STATEFUL_SET_DEFAULTS = {"podManagementPolicy": "OrderedReady"}


def conflicts(old: list[Json], new: list[Json]) -> list[str]:
    """Return the fields for which an upgrade from the old to the new objects is refused."""
    before = {identity(document): document for document in old if not is_hook(document)}
    return [
        f"{document['kind']}/{document['metadata']['name']}: {field}"
        for document in new
        if (previous := before.get(identity(document))) and not is_hook(document)
        for field in changed_fields(previous, document)
    ]


def identity(document: Json) -> tuple[str, str, str]:
    """Return kind, namespace and name, which identify an object in every API version."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def is_hook(document: Json) -> bool:
    """Return whether it is a hook, which Helm deletes and creates again."""
    return "helm.sh/hook" in (document["metadata"].get("annotations") or {})


def changed_fields(old: Json, new: Json) -> list[str]:
    """Return the immutable fields in which the two objects differ."""
    if old.get("immutable") and any(old.get(part) != new.get(part) for part in ("data", "type")):
        return [IMMUTABLE_DATA]
    before, after = immutable_fields(old), immutable_fields(new)
    return sorted(
        field for field in before.keys() | after.keys() if before.get(field) != after.get(field)
    )


def immutable_fields(document: Json) -> Json:
    """Return the immutable fields of an object by path."""
    kind = document["kind"]
    if kind == "StatefulSet":
        spec = STATEFUL_SET_DEFAULTS | document["spec"]
        values = {f"spec.{name}": spec[name] for name in spec.keys() - STATEFUL_SET_MAY_CHANGE}
        claims = values.get("spec.volumeClaimTemplates") or []
        return values | {"spec.volumeClaimTemplates": claims}
    return {path: value_at(document, path) for path in FIELDS.get(kind, [])}


def value_at(document: Json, path: str) -> Any:
    """Return the value at a path, or None."""
    value: Any = document
    for step in path.split("."):
        value = (value or {}).get(step)
    return value

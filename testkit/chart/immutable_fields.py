"""What the API server refuses to change in an object that is there: an upgrade must not try.

Helm patches an object in place, so a change below fails the upgrade halfway, and the only way out
is to delete the object, with its pods or its data.
"""

from typing import Any

Json = dict[str, Any]

WHOLE = "data of an immutable object"

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
# Of a StatefulSet all but these is fixed, on the oldest Kubernetes that is supported.
STATEFUL_SET_MAY_CHANGE = {
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "template",
    "updateStrategy",
}
# What it has when nothing is said.
STATEFUL_SET_DEFAULTS = {"podManagementPolicy": "OrderedReady"}


def conflicts(old: list[Json], new: list[Json]) -> list[str]:
    """What an upgrade from the old objects to the new ones would be refused for."""
    before = {identity(each): each for each in old if not is_hook(each)}
    return [
        f"{each['kind']}/{each['metadata']['name']}: {field}"
        for each in new
        if (there := before.get(identity(each))) and not is_hook(each)
        for field in changed(there, each)
    ]


def identity(document: Json) -> tuple[str, str, str]:
    """What makes it the same object; a version of its API does not."""
    metadata = document["metadata"]
    return document["kind"], metadata.get("namespace", ""), metadata["name"]


def is_hook(document: Json) -> bool:
    """Helm deletes and makes hooks anew."""
    return "helm.sh/hook" in (document["metadata"].get("annotations") or {})


def changed(old: Json, new: Json) -> list[str]:
    """The immutable fields in which the two differ."""
    if old.get("immutable") and any(old.get(part) != new.get(part) for part in ("data", "type")):
        return [WHOLE]
    before, after = fixed(old), fixed(new)
    return sorted(
        field for field in before.keys() | after.keys() if before.get(field) != after.get(field)
    )


def fixed(document: Json) -> Json:
    """The immutable fields of an object, by their paths."""
    kind = document["kind"]
    if kind == "StatefulSet":
        spec = STATEFUL_SET_DEFAULTS | document["spec"]
        kept = {f"spec.{name}": spec[name] for name in spec.keys() - STATEFUL_SET_MAY_CHANGE}
        claims = kept.get("spec.volumeClaimTemplates") or []
        return kept | {"spec.volumeClaimTemplates": claims}
    return {path: at(document, path) for path in FIELDS.get(kind, [])}


def at(document: Json, path: str) -> Any:
    """What is at a path, or None."""
    found: Any = document
    for step in path.split("."):
        found = (found or {}).get(step)
    return found

"""Is an object what a version of Kubernetes, or a CRD, takes? Strictly: it knows every field."""

from functools import cache
from pathlib import Path

import jsonschema
import yaml
from kubernetes_validate import utils

from testkit.chart.rendering import Json

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
CARRIED = [utils.major_minor(each) for each in utils.all_versions()]
CRDS = yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text())

# It reads a megabyte of JSON anew for each object.
utils.schema_contents = cache(utils.schema_contents)


def is_foreign(document: Json) -> bool:
    """Is it of a kind that a CRD brings?"""
    return name(document) in CRDS


def name(document: Json) -> str:
    """How crds.yaml calls its kind."""
    return f"{document['apiVersion']} {document['kind']}"


def problem(document: Json, version: str) -> str:
    """What that version of Kubernetes, or the CRD, would refuse; nothing when it is taken."""
    try:
        if is_foreign(document):
            schema = CRDS[name(document)] | {"definitions": CRDS["definitions"]}
            jsonschema.validate(document, schema)
        else:
            utils.validate(document, version, strict=True)
    except jsonschema.ValidationError as error:
        return f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    except utils.SchemaNotFoundError as error:
        return str(error.message)
    return nulls(document, "")


def nulls(value: object, path: str) -> str:
    """Where a null is: the schemas take it, a server drops it, and a diff finds it for ever."""
    if value is None:
        return f"{path}: null"
    children: list[tuple[object, object]] = []
    if isinstance(value, dict):
        children = [*value.items()]
    elif isinstance(value, list):
        children = [*enumerate(value)]
    return next(filter(None, (nulls(each, f"{path}.{key}") for key, each in children)), "")

"""Validate objects against strict schemas of Kubernetes versions and of CRDs."""

from functools import cache
from pathlib import Path

import jsonschema
import yaml
from kubernetes_validate import utils

from testkit.chart.rendering import Json

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]
BUNDLED_VERSIONS = [utils.major_minor(version) for version in utils.all_versions()]
CRDS = yaml.safe_load((Path(__file__).parent / "crds.yaml").read_text())

# Cached, because the library reads a megabyte of JSON for each object.
utils.schema_contents = cache(utils.schema_contents)


def is_foreign(document: Json) -> bool:
    """Return whether a CRD defines its kind."""
    return name(document) in CRDS


def name(document: Json) -> str:
    """Return the name of its kind in crds.yaml."""
    return f"{document['apiVersion']} {document['kind']}"


def find_schema_error(document: Json, version: str) -> str:
    """Return why this version of Kubernetes, or the CRD, refuses an object, or nothing."""
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
    return find_null(document, "")


def find_null(value: object, path: str) -> str:
    """Return the path of a null. Schemas accept it, but servers drop it, so diffs never end."""
    if value is None:
        return f"{path}: null"
    children: list[tuple[object, object]] = []
    if isinstance(value, dict):
        children = [*value.items()]
    elif isinstance(value, list):
        children = [*enumerate(value)]
    return next(filter(None, (find_null(child, f"{path}.{key}") for key, child in children)), "")

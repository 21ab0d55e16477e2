"""Generate the chart's `config` from settings.py: rows of the ConfigMap, a part of the schema.

A key is its variable in camel case, without BUSYAPI. Defaults and comments of values.yaml are
written by hand: a cluster does not always need those of a single process.
"""

import json
from collections.abc import Iterator
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

from busyapi.renamed_settings import RENAMED
from busyapi.settings import Settings
from tools.generate.chart_defaults import VALUES, read_defaults

OWNED = ""
SCHEMA = "charts/busyapi/values.schema.json"
CONFIG_MAP = "charts/busyapi/templates/configmap.yaml"
BEGIN, END = "{{- /* Generated from settings.py by `make generate`. */}}", "{{- /* End. */}}"

JWT = (
    *("KEYS", "ISSUER", "AUDIENCE", "REQUIRED_CLAIMS", "LEEWAY", "SCOPE_CLAIMS", "SCOPE_PREFIX"),
    *("TENANT_CLAIM", "PATIENT_CLAIM", "RATE_CLAIM", "REFRESH", "KEEP_KEYS", "CA_FILE"),
)
WITHOUT_CONFIG_KEY = {
    "PORT": "fixed: the Service's port is service.port",
    "BUSYAPI_METRICS_PORT": "fixed: named by monitors and policies",
    "BUSYAPI_FLUSHER_PORT": "fixed: part of BUSYAPI_FLUSHER_URLS",
    "BUSYAPI_ARCHIVE_PORT": "fixed: part of BUSYAPI_FLUSHER_URLS",
    "BUSYAPI_ARCHIVE_SECRET_FILE": "computed from flusher.auth",
    "BUSYAPI_ARCHIVE_CERT_FILE": "computed from archivePort.tls",
    "BUSYAPI_ARCHIVE_KEY_FILE": "computed from archivePort.tls",
    "BUSYAPI_ARCHIVE_CLIENT_CA_FILE": "computed from archivePort.tls",
    "BUSYAPI_ARCHIVE_CA_FILE": "computed from archivePort.tls",
    "BUSYAPI_ARCHIVE_CLIENT_CERT_FILE": "computed from archivePort.tls",
    "BUSYAPI_ARCHIVE_CLIENT_KEY_FILE": "computed from archivePort.tls",
    "BUSYAPI_FLUSHER_URLS": "computed from archivePort.tls and the release's name",
    "BUSYAPI_REDIS_URL": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_USERNAME": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_PASSWORD": "the chart uses the file, so that the password can be rotated",
    "BUSYAPI_REDIS_PASSWORD_FILE": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_CA_FILE": "computed from externalRedis.tls",
    "BUSYAPI_REDIS_CERT_FILE": "computed from externalRedis.tls",
    "BUSYAPI_REDIS_KEY_FILE": "computed from externalRedis.tls",
    "BUSYAPI_REDIS_SENTINEL_USERNAME": "computed from externalRedis.sentinel",
    "BUSYAPI_REDIS_SENTINEL_PASSWORD": "the chart uses the file, so that it can be rotated",
    "BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE": "computed from externalRedis.sentinel",
    "BUSYAPI_INSTALLATION": "computed from the release's namespace and name",
    "BUSYAPI_TOKENS_FILE": "computed from auth",
    "BUSYAPI_WRITER_SALT_FILE": "computed from auth.writerSalt",
    "BUSYAPI_HOST": "fixed: the Service, probes and monitors need every address of the pod",
    "BUSYAPI_ANONYMOUS": "computed from auth",
    "BUSYAPI_TRUSTED_PROXIES": "computed from auth",
    "BUSYAPI_CLIENT_CERTIFICATES": "computed from auth",
    **{f"BUSYAPI_JWT_{name}": "computed from auth.jwt" for name in JWT},
    "BUSYAPI_ARCHIVE_DIR": "fixed: on the archive's volume",
    **{
        f"BUSYAPI_LAKE_{name}": "computed from lake"
        for name in ("WAREHOUSE", "CATALOG", "TABLE", "INTERVAL", "SNAPSHOT_HOURS")
    },
    "BUSYAPI_LAKE_METRICS_PORT": "fixed: named by monitors and policies",
}
"""Variables that no `config` key sets, and why."""
COMPUTED = {"keyPrefix", "durability", "replicas"}
"""Keys that a template computes the variable from."""
MAY_BE_EMPTY = {"durability"}
"""Keys with choices for which a template chooses if none is set."""
PATTERNS = {
    "keyPrefix": "^([A-Za-z0-9][A-Za-z0-9._:-]{0,127})?$",
    "corsOrigins": "^(https?://[^/*A-Z ]+( *, *https?://[^/*A-Z ]+)*)?$",
}
"""Patterns of text values without a list of choices."""
MAXIMA = {"partitions": 1000, "drainDelay": 3600, "stopTimeout": 3600}
"""Maxima of the chart that are lower than those of the service."""


def config_key(variable: str) -> str:
    """Return the key in `config` of a variable."""
    first, *others = variable.removeprefix("BUSYAPI_").lower().split("_")
    return first + "".join(word.capitalize() for word in others)


FORMER = {config_key(new): config_key(old) for old, new in RENAMED.items()}
"""The former names of keys, which are accepted for one release; NOTES.txt warns."""


def config_settings() -> Iterator[tuple[str, Field[Any]]]:
    """Yield each key with its setting."""
    for field in fields(Settings):
        if field.metadata["name"] not in WITHOUT_CONFIG_KEY:
            yield config_key(field.metadata["name"]), field


def render_config_map(text: str) -> str:
    """Return the template with new rows.

    Raises:
        ValueError: the template has no place for them.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{CONFIG_MAP} has no {BEGIN} … {END}")
    rows = (
        render_row(name, setting) for name, setting in config_settings() if name not in COMPUTED
    )
    return f"{before}{begin}\n{''.join(rows)}  {end}{after}"


def render_row(name: str, setting: Field[Any]) -> str:
    """Return a row of the ConfigMap. A large number must not be written with an exponent."""
    if name in FORMER:
        name = f"{FORMER[name]} | default .{name}"
    # toJson writes no exponent.
    number = {int: " | int64", float: " | toJson"}.get(type(setting.default), "")
    return f"  {setting.metadata['name']}: {{{{ .{name}{number} | quote }}}}\n"


def render_schema(text: str, values: str) -> str:
    """Return the schema with a fresh `config`, and with null accepted for every value.

    The templates use the default for a null and for a value that is missing.
    """
    content = json.loads(text)
    config = content["properties"]["config"]
    config["properties"] = {name: make_rule(name, setting) for name, setting in config_settings()}
    for name, former in FORMER.items():
        config["properties"][former] = config["properties"][name]
    accept_null(content, content, read_defaults(values))
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def accept_null(content: dict[str, Any], part: dict[str, Any], sections: dict[str, Any]) -> None:
    """Accept null for everything in a map, and sections without some of their values."""
    if sections:
        part.pop("required", None)
    children = list(part.get("properties", {}).items())
    if isinstance(part.get("additionalProperties"), dict):
        children.append(("", part["additionalProperties"]))
    for name, reference in children:
        child = reference
        while "$ref" in child:
            child = content["definitions"][child["$ref"].removeprefix("#/definitions/")]
        kinds = child["type"] if isinstance(child["type"], list) else [child["type"]]
        child["type"] = [*kinds, *({"null"} - {*kinds})]
        if None not in child.get("enum", [None]):
            child["enum"].append(None)
        section = sections.get(name)
        accept_null(content, child, section if isinstance(section, dict) else {})


def make_rule(name: str, setting: Field[Any]) -> dict[str, Any]:
    """Return the schema of a key.

    Raises:
        ValueError: it is text without a pattern.
    """
    meta, kind = setting.metadata, type(setting.default)
    if meta["choices"]:
        # With an empty default, it may also be that none is chosen.
        none = [""] if setting.default == "" or name in MAY_BE_EMPTY else []
        return {"type": "string", "enum": [*none, *meta["choices"]]}
    if kind is str:
        if name not in PATTERNS:
            raise ValueError(
                f"config.{name}: add it to PATTERNS or WITHOUT_CONFIG_KEY in {__name__}"
            )
        return {"type": "string", "pattern": PATTERNS[name]}
    return {
        "type": "integer" if kind is int else "number",
        "minimum": meta["minimum"],
        "maximum": MAXIMA.get(name, meta["maximum"]),
    }


def render_files(root: Path) -> dict[str, str]:
    """Return the template and the schema by their paths."""
    map_text, schema_text, values = (
        (root / name).read_text(encoding="utf-8") for name in (CONFIG_MAP, SCHEMA, VALUES)
    )
    return {CONFIG_MAP: render_config_map(map_text), SCHEMA: render_schema(schema_text, values)}

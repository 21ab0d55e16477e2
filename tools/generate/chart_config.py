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

OWNED = ""
SCHEMA = "charts/busyapi/values.schema.json"
CONFIG_MAP = "charts/busyapi/templates/configmap.yaml"
BEGIN, END = "{{- /* Generated from settings.py by `make generate`. */}}", "{{- /* End. */}}"

ELSEWHERE = {
    "PORT": "fixed: the Service's port is service.port",
    "BUSYAPI_METRICS_PORT": "fixed: named by monitors and policies",
    "BUSYAPI_FLUSHER_PORT": "fixed: part of BUSYAPI_FLUSHER_URLS",
    "BUSYAPI_FLUSHER_URLS": "computed from the release's name",
    "BUSYAPI_REDIS_URL": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_USERNAME": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_PASSWORD": "the chart uses the file, so that the password can be rotated",
    "BUSYAPI_REDIS_PASSWORD_FILE": "computed from valkey and externalRedis",
    "BUSYAPI_REDIS_CA_FILE": "computed from externalRedis.tls",
    "BUSYAPI_INSTALLATION": "computed from the release's namespace and name",
    "BUSYAPI_TOKENS_FILE": "computed from auth",
    "BUSYAPI_ARCHIVE_DIR": "fixed: on the archive's volume",
}
"""Variables that no `config` key sets, and why."""
COMPUTED = {"keyPrefix"}
"""Keys that a template computes the variable from."""
OPTIONAL = {"keyPrefix", "replicas", "fastPath"}
"""Keys that values of an older release may lack: `helm upgrade --reuse-values`."""
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
        if field.metadata["name"] not in ELSEWHERE:
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
    """Return a row of the ConfigMap. Without int64, Helm writes large numbers with an exponent."""
    default = f" | default {json.dumps(setting.default)}" if name in OPTIONAL else ""
    if name in FORMER:
        name = f"{FORMER[name]} | default .{name}"
    whole = " | int64" if type(setting.default) is int else ""
    return f"  {setting.metadata['name']}: {{{{ .{name}{default}{whole} | quote }}}}\n"


def render_schema(text: str) -> str:
    """Return the schema with a new `config`."""
    content = json.loads(text)
    config = content["properties"]["config"]
    config["required"] = [name for name, _ in config_settings() if name not in OPTIONAL]
    config["properties"] = {name: make_rule(name, setting) for name, setting in config_settings()}
    for name, former in FORMER.items():
        config["properties"][former] = config["properties"][name]
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def make_rule(name: str, setting: Field[Any]) -> dict[str, Any]:
    """Return the schema of a key.

    Raises:
        ValueError: it is text without a pattern.
    """
    meta, kind = setting.metadata, type(setting.default)
    if meta["choices"]:
        return {"type": "string", "enum": list(meta["choices"])}
    if kind is str:
        if name not in PATTERNS:
            raise ValueError(f"config.{name}: add it to PATTERNS or ELSEWHERE in {__name__}")
        return {"type": "string", "pattern": PATTERNS[name]}
    return {
        "type": "integer" if kind is int else "number",
        "minimum": meta["minimum"],
        "maximum": MAXIMA.get(name, meta["maximum"]),
    }


def render_files(root: Path) -> dict[str, str]:
    """Return the template and the schema by their paths."""
    texts = {name: (root / name).read_text(encoding="utf-8") for name in (CONFIG_MAP, SCHEMA)}
    return {CONFIG_MAP: render_config_map(texts[CONFIG_MAP]), SCHEMA: render_schema(texts[SCHEMA])}

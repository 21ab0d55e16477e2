"""Every setting: one row each, read from the environment once, in the command line's wiring."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from busyapi.errors import ConfigError
from busyapi.renamed_settings import apply_new_names

TIERS = ("fsync", "replicated", "memory")
SWITCH = ("on", "off")
VALIDATIONS = ("strict", "lenient")
MAX_PORT = 65535
MIN_DEADLINE_SECONDS = 0.1
MAX_DEADLINE_SECONDS = 300
"""Seconds. Redis remembers what a committer may repeat for much longer
(session.COMMITTER_MEMORY_SECONDS)."""


MAX_VALUE = 2**40
"""Of any figure that has no smaller limit: what Redis, sockets and file systems still take."""
MAX_BOUND_USAGES = 1_000_000_000
"""A jump skips this many ids. The archive keeps the largest bound for good, and ids end at 2^53."""
MAX_REPLICAS = 100
MAX_CONNECTIONS = 1_000_000
MAX_HEADER_BYTES = 65_536
"""Bytes. Sanic reads no further ahead than this."""
MAX_KEY_TTL_SECONDS = 31 * 86_400


def setting(
    name: str,
    default: Any,
    unit: str,
    reason: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float = 0,
    maximum: float = MAX_VALUE,
) -> Any:
    """Declare a setting: environment variable, default, unit, and why one would change it."""
    return field(
        default=default,
        metadata={
            "name": name,
            "unit": unit,
            "reason": reason,
            "choices": choices,
            "minimum": minimum,
            "maximum": maximum,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one process; docs/reference/settings.md is generated from them."""

    port: int = setting("PORT", 3000, "TCP port", "where devices post usages", maximum=MAX_PORT)
    metrics_port: int = setting(
        "BUSYAPI_METRICS_PORT",
        9090,
        "TCP port",
        "where Prometheus scrapes the API; never routed",
        maximum=MAX_PORT,
    )
    flusher_port: int = setting(
        "BUSYAPI_FLUSHER_PORT",
        9100,
        "TCP port",
        "the flusher's probes, metrics and lookups, without authentication: do not expose it",
        maximum=MAX_PORT,
    )
    flusher_urls: str = setting(
        "BUSYAPI_FLUSHER_URLS",
        "http://127.0.0.1:9100",
        "URL, or one for each partition, split by commas; {partition} is replaced",
        "where the API asks for archived usages",
    )
    redis_url: str = setting(
        "BUSYAPI_REDIS_URL",
        "redis://127.0.0.1:6379",
        "URL",
        "redis://host:port, redis+sentinel://host:port,host:port/service or"
        " redis+cluster://host:port,host:port; rediss for TLS",
    )
    redis_username: str = setting("BUSYAPI_REDIS_USERNAME", "", "", "the ACL user")
    redis_password: str = setting("BUSYAPI_REDIS_PASSWORD", "", "", "that user's password")
    redis_password_file: str = setting(
        "BUSYAPI_REDIS_PASSWORD_FILE",
        "",
        "path",
        "a file with the password, read at every connection, so that it can be rotated",
    )
    redis_ca_file: str = setting(
        "BUSYAPI_REDIS_CA_FILE", "", "path", "the CA of a server that the system does not trust"
    )
    key_prefix: str = setting(
        "BUSYAPI_KEY_PREFIX",
        "busyapi",
        "",
        "the first word of every key in Redis: installations that share a Redis need different"
        " ones; fixed at install and recorded in the archive",
    )
    installation: str = setting(
        "BUSYAPI_INSTALLATION",
        "",
        "",
        "an id of this installation, recorded in Redis: an API commits only where the record has"
        " the same one",
    )
    partitions: int = setting(
        "BUSYAPI_PARTITIONS", 1, "partitions", "fixed at install and recorded in Redis", minimum=1
    )
    bound: int = setting(
        "BUSYAPI_BOUND",
        1_000_000,
        "usages",
        "most usages a partition holds between issue and archive: Redis memory for an outage",
        minimum=1,
        maximum=MAX_BOUND_USAGES,
    )
    durability: str = setting("BUSYAPI_DURABILITY", "fsync", "", "what a 201 means", choices=TIERS)
    replicas: int = setting(
        "BUSYAPI_REPLICAS",
        1,
        "replicas",
        "with the tier `replicated`: how many confirm each commit. No more may be connected: a"
        " failover could promote one that did not confirm",
        minimum=1,
        maximum=MAX_REPLICAS,
    )
    validation: str = setting(
        "BUSYAPI_VALIDATION",
        "strict",
        "",
        "lenient takes any JSON object",
        choices=VALIDATIONS,
    )
    max_body: int = setting(
        "BUSYAPI_MAX_BODY_BYTES", 65_536, "bytes", "a usage, alone or in a batch", minimum=2
    )
    max_batch_bytes: int = setting(
        "BUSYAPI_MAX_BATCH_BYTES", 4_194_304, "bytes", "a batch, also when inflated", minimum=2
    )
    max_batch_items: int = setting(
        "BUSYAPI_MAX_BATCH_ITEMS", 10_000, "usages", "usages in one batch", minimum=1
    )
    receiving_bytes: int = setting(
        "BUSYAPI_RECEIVING_BYTES",
        67_108_864,
        "bytes",
        "requests on their way into one process, over all connections; over it, the slowest get"
        " 503. At least twice the largest body",
        minimum=65_536,
    )
    max_connections: int = setting(
        "BUSYAPI_MAX_CONNECTIONS",
        2048,
        "connections",
        "at one port of one process; at the bound a quiet one makes room, or the new one gets 503",
        minimum=8,
        maximum=MAX_CONNECTIONS,
    )
    max_header: int = setting(
        "BUSYAPI_MAX_HEADER_BYTES",
        8192,
        "bytes",
        "a request's line and headers, 413 over it; a mesh that forwards client certificates"
        " needs more",
        minimum=1024,
        maximum=MAX_HEADER_BYTES,
    )
    pending_max: int = setting(
        "BUSYAPI_PENDING_MAX",
        100_000,
        "usages",
        "waiting in one API process; over it, 503",
        minimum=1,
    )
    pending_bytes: int = setting(
        "BUSYAPI_PENDING_BYTES", 67_108_864, "bytes", "likewise, by size", minimum=2
    )
    commit_deadline: float = setting(
        "BUSYAPI_COMMIT_DEADLINE",
        10.0,
        "seconds",
        "a usage waits this long for Redis, then 503",
        minimum=MIN_DEADLINE_SECONDS,
        maximum=MAX_DEADLINE_SECONDS,
    )
    request_deadline: float = setting(
        "BUSYAPI_REQUEST_DEADLINE",
        15.0,
        "seconds",
        "a request must arrive whole in this time",
        minimum=MIN_DEADLINE_SECONDS,
        maximum=MAX_DEADLINE_SECONDS,
    )
    drain_delay: float = setting(
        "BUSYAPI_DRAIN_DELAY",
        5.0,
        "seconds",
        "not ready, still serving, while endpoints forget this pod",
    )
    stop_timeout: float = setting(
        "BUSYAPI_STOP_TIMEOUT", 15.0, "seconds", "for accepted requests to finish after that"
    )
    idempotency_ttl: int = setting(
        "BUSYAPI_IDEMPOTENCY_TTL",
        3600,
        "seconds",
        "how long an Idempotency-Key is known, and up to a third longer; each takes 135 bytes of"
        " Valkey's memory (180 of Redis 7's) until then",
        minimum=1,
        maximum=MAX_KEY_TTL_SECONDS,
    )
    idempotency_keys: int = setting(
        "BUSYAPI_IDEMPOTENCY_KEYS",
        0,
        "keys",
        "most Idempotency-Keys that a partition knows at a time: over it a post with a new key is"
        " answered 503, any other is not; 0 is half of Redis' maxmemory over all partitions, or"
        " 2,000,000 without one",
        minimum=0,
        maximum=MAX_BOUND_USAGES,
    )
    tokens_file: str = setting(
        "BUSYAPI_TOKENS_FILE", "", "path", "turns authentication on: lines of rights and token"
    )
    rate_limit: float = setting(
        "BUSYAPI_RATE_LIMIT",
        0.0,
        "usages a second",
        "for each token, or each address without authentication; a batch counts its usages, a read"
        " one; 0 is no limit",
    )
    cors_origins: str = setting(
        "BUSYAPI_CORS_ORIGINS",
        "",
        "origins, split by commas",
        "pages of these origins may call the API from a browser; none by default",
    )
    fast_path: str = setting(
        "BUSYAPI_FAST_PATH",
        "on",
        "",
        "off sends every request through Sanic; authentication and rate limits do so anyway",
        choices=SWITCH,
    )
    archive_dir: str = setting(
        "BUSYAPI_ARCHIVE_DIR", "/var/lib/busyapi/archive", "path", "the archive volume"
    )
    segment_bytes: int = setting(
        "BUSYAPI_SEGMENT_BYTES", 67_108_864, "bytes", "a segment is closed at this size", minimum=1
    )
    segment_age: float = setting(
        "BUSYAPI_SEGMENT_AGE", 3600.0, "seconds", "or at this age, or at midnight UTC"
    )
    retention_days: int = setting(
        "BUSYAPI_RETENTION_DAYS", 0, "days", "older segments are deleted; 0 keeps all"
    )
    log_level: str = setting(
        "BUSYAPI_LOG_LEVEL", "info", "", "how much to log", choices=("debug", "info", "warning")
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read and check every setting.

        Raises:
            ConfigError: a value is not of its type or not allowed; the message names it.
        """
        values: dict[str, Any] = {}
        variables = apply_new_names(environment)
        for each in fields(cls):
            raw = variables.get(each.metadata["name"])
            if raw is not None and raw != "":
                values[each.name] = _parse(raw, type(each.default), each.metadata)
        return cls(**values)


def _parse(raw: str, kind: type, meta: Mapping[str, Any]) -> Any:
    name, choices = meta["name"], meta["choices"]
    try:
        value = kind(raw)
    except ValueError:
        noun = {int: "a whole number", float: "a number"}[kind]
        raise ConfigError(f"{name} must be {noun} ({meta['unit']})") from None
    if choices and value not in choices:
        raise ConfigError(f"{name} must be one of {', '.join(choices)}")
    minimum, maximum = meta["minimum"], meta["maximum"]
    if kind is not str and not (minimum <= value <= maximum and value < float("inf")):
        allowed = f"from {minimum} to {maximum}"
        raise ConfigError(f"{name} must be {allowed} ({meta['unit']})")
    return value

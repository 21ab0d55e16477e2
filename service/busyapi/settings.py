"""All settings: one row each. The command line's wiring reads them once from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from busyapi.errors import ConfigError
from busyapi.renamed_settings import apply_new_names

TIERS = ("fsync", "replicated", "memory")
REDIS_TRUSTS = ("appendfsync", "service-log")
SWITCH = ("on", "off")
CERTIFICATE_FORMS = ("envoy", "nginx")
ANONYMOUS_SCOPES = ("write,read", "write", "read")
AUDIT_MODES = ("auto", "required", "background", "off")
VALIDATIONS = ("strict", "lenient")
MAX_PORT = 65535
MIN_DEADLINE_SECONDS = 0.1
MAX_DEADLINE_SECONDS = 300
"""Redis remembers a batch, which a committer may repeat, for much longer
(session.COMMITTER_MEMORY_SECONDS)."""

MAX_VALUE = 2**40
"""The limit of every number without a smaller one. Redis, sockets and file systems accept it."""
MAX_BOUND_USAGES = 1_000_000_000
"""A jump skips this many ids. The archive keeps the largest bound ever set, and ids end at 2^53."""
MAX_REPLICAS = 100
MAX_CONNECTIONS = 1_000_000
MAX_HEADER_BYTES = 65_536
"""Sanic reads no further ahead than this."""
MAX_LEEWAY_SECONDS = 300
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
    """Declare a setting: environment variable, default, unit, and what it is for."""
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
    host: str = setting(
        "BUSYAPI_HOST",
        "",
        "IP address",
        "the address at which every port listens; empty: all addresses, IPv6 and IPv4",
    )
    metrics_port: int = setting(
        "BUSYAPI_METRICS_PORT",
        9090,
        "TCP port",
        "the port where Prometheus scrapes the API: do not expose it",
        maximum=MAX_PORT,
    )
    flusher_port: int = setting(
        "BUSYAPI_FLUSHER_PORT",
        9100,
        "TCP port",
        "the flusher's probes and metrics, without authentication: do not expose it",
        maximum=MAX_PORT,
    )
    archive_port: int = setting(
        "BUSYAPI_ARCHIVE_PORT",
        9101,
        "TCP port",
        "the flusher's port for the API: lookups in the archive, and the audit trail",
        maximum=MAX_PORT,
    )
    archive_secret_file: str = setting(
        "BUSYAPI_ARCHIVE_SECRET_FILE",
        "",
        "path",
        "the secret of that port, one per line: the API sends the first, the flusher accepts each."
        " Without it, the port serves every process that can connect",
    )
    archive_cert_file: str = setting(
        "BUSYAPI_ARCHIVE_CERT_FILE", "", "path", "the flusher's certificate: the port uses TLS"
    )
    archive_key_file: str = setting(
        "BUSYAPI_ARCHIVE_KEY_FILE", "", "path", "the key of that certificate"
    )
    archive_client_ca_file: str = setting(
        "BUSYAPI_ARCHIVE_CLIENT_CA_FILE",
        "",
        "path",
        "for the flusher: clients of that port need a certificate of this CA",
    )
    archive_ca_file: str = setting(
        "BUSYAPI_ARCHIVE_CA_FILE",
        "",
        "path",
        "for the API: the CA of the flushers' certificates, if the system does not trust it",
    )
    archive_client_cert_file: str = setting(
        "BUSYAPI_ARCHIVE_CLIENT_CERT_FILE", "", "path", "the API's certificate for that port"
    )
    archive_client_key_file: str = setting(
        "BUSYAPI_ARCHIVE_CLIENT_KEY_FILE", "", "path", "the key of that certificate"
    )
    flusher_urls: str = setting(
        "BUSYAPI_FLUSHER_URLS",
        "http://127.0.0.1:9101",
        "URL, or one for each partition, separated by commas; {partition} is replaced",
        "where the API reaches the flushers: BUSYAPI_ARCHIVE_PORT; https for TLS",
    )
    redis_url: str = setting(
        "BUSYAPI_REDIS_URL",
        "redis://127.0.0.1:6379",
        "URL",
        "redis://host:port, redis+sentinel://host:port,host:port/service or"
        " redis+cluster://host:port,host:port; rediss for TLS. Several servers are separated by"
        " blanks, with the partitions of each: `0-1=redis://one:6379 2-3=redis://two:6379`",
    )
    redis_username: str = setting("BUSYAPI_REDIS_USERNAME", "", "", "the user of Redis's ACL")
    redis_password: str = setting("BUSYAPI_REDIS_PASSWORD", "", "", "the password of that user")
    redis_password_file: str = setting(
        "BUSYAPI_REDIS_PASSWORD_FILE",
        "",
        "path",
        "a file with the password, read for every connection, so that you can rotate it",
    )
    redis_ca_file: str = setting(
        "BUSYAPI_REDIS_CA_FILE", "", "path", "the CA of a server that the system does not trust"
    )
    redis_cert_file: str = setting(
        "BUSYAPI_REDIS_CERT_FILE",
        "",
        "path",
        "the certificate that Redis and its Sentinels ask clients for; this and the next file are"
        " read for every connection",
    )
    redis_key_file: str = setting(
        "BUSYAPI_REDIS_KEY_FILE", "", "path", "the key of that certificate, without a password"
    )
    redis_sentinel_username: str = setting(
        "BUSYAPI_REDIS_SENTINEL_USERNAME", "", "", "the user of the Sentinels' ACL"
    )
    redis_sentinel_password: str = setting(
        "BUSYAPI_REDIS_SENTINEL_PASSWORD",
        "",
        "",
        "the password of the Sentinels: they do not get that of Redis",
    )
    redis_sentinel_password_file: str = setting(
        "BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE",
        "",
        "path",
        "a file with the password of the Sentinels, read for every connection",
    )
    redis_trust: str = setting(
        "BUSYAPI_REDIS_TRUST",
        "",
        "",
        "what you know of a Redis that refuses CONFIG GET, and busyapi then does not check."
        " appendfsync: `appendfsync always` and `no-appendfsync-on-rewrite no`. service-log: the"
        " service stores each write in a durable log of its own before it replies, without an"
        " append-only file. Empty: nothing, such a Redis is refused",
        choices=REDIS_TRUSTS,
    )
    key_prefix: str = setting(
        "BUSYAPI_KEY_PREFIX",
        "busyapi",
        "",
        "the start of every key in Redis: installations that share a Redis need different"
        " prefixes; fixed at install and recorded in the archive",
    )
    installation: str = setting(
        "BUSYAPI_INSTALLATION",
        "",
        "",
        "the id of this installation, recorded in Redis: an API process commits only if the"
        " recorded id is the same",
    )
    partitions: int = setting(
        "BUSYAPI_PARTITIONS",
        1,
        "partitions",
        "to which posts go; may change, but not below the number at install",
        minimum=1,
    )
    bound: int = setting(
        "BUSYAPI_BOUND",
        1_000_000,
        "usages",
        "the largest allowed backlog of a partition: usages that are issued and not archived yet."
        " At the bound posts get 503; Redis must have memory for this many",
        minimum=1,
        maximum=MAX_BOUND_USAGES,
    )
    durability: str = setting("BUSYAPI_DURABILITY", "fsync", "", "what a 201 means", choices=TIERS)
    replicas: int = setting(
        "BUSYAPI_REPLICAS",
        1,
        "replicas",
        "with the tier `replicated`: the number of replicas that the installation has. While fewer"
        " confirm, an alert fires",
        minimum=1,
        maximum=MAX_REPLICAS,
    )
    min_replicas: int = setting(
        "BUSYAPI_MIN_REPLICAS",
        1,
        "replicas",
        "with the tier `replicated`: while fewer replicas than this can confirm, posts get 503",
        minimum=1,
        maximum=MAX_REPLICAS,
    )
    validation: str = setting(
        "BUSYAPI_VALIDATION", "strict", "", "lenient accepts any JSON object", choices=VALIDATIONS
    )
    max_body: int = setting(
        "BUSYAPI_MAX_BODY_BYTES",
        65_536,
        "bytes",
        "maximum size of a usage, alone or in an HTTP batch",
        minimum=2,
    )
    max_batch_bytes: int = setting(
        "BUSYAPI_MAX_BATCH_BYTES",
        4_194_304,
        "bytes",
        "maximum size of an HTTP batch, before and after decompression",
        minimum=2,
    )
    max_batch_items: int = setting(
        "BUSYAPI_MAX_BATCH_ITEMS", 10_000, "usages", "usages in one HTTP batch", minimum=1
    )
    receiving_bytes: int = setting(
        "BUSYAPI_RECEIVING_BYTES",
        67_108_864,
        "bytes",
        "incomplete requests in one process, over all connections; above it, the slowest get 503."
        " At least twice the largest body",
        minimum=65_536,
    )
    max_connections: int = setting(
        "BUSYAPI_MAX_CONNECTIONS",
        2048,
        "connections",
        "at one port of one process; above it, an idle or slow one is closed, or the new one gets"
        " 503",
        minimum=8,
        maximum=MAX_CONNECTIONS,
    )
    max_header: int = setting(
        "BUSYAPI_MAX_HEADER_BYTES",
        8192,
        "bytes",
        "the request line and the headers; above it, 413. A mesh that forwards client certificates"
        " needs more",
        minimum=1024,
        maximum=MAX_HEADER_BYTES,
    )
    pending_max: int = setting(
        "BUSYAPI_PENDING_MAX",
        100_000,
        "usages",
        "pending usages of one API process: not yet stored in Redis; above it, 503",
        minimum=1,
    )
    pending_bytes: int = setting(
        "BUSYAPI_PENDING_BYTES", 67_108_864, "bytes", "all pending usages; above it, 503", minimum=2
    )
    commit_deadline: float = setting(
        "BUSYAPI_COMMIT_DEADLINE",
        10.0,
        "seconds",
        "how long a usage may be pending before its request gets 503",
        minimum=MIN_DEADLINE_SECONDS,
        maximum=MAX_DEADLINE_SECONDS,
    )
    request_deadline: float = setting(
        "BUSYAPI_REQUEST_DEADLINE",
        15.0,
        "seconds",
        "the time in which a request must arrive completely",
        minimum=MIN_DEADLINE_SECONDS,
        maximum=MAX_DEADLINE_SECONDS,
    )
    drain_delay: float = setting(
        "BUSYAPI_DRAIN_DELAY",
        5.0,
        "seconds",
        "after SIGTERM, the process still serves for this long, while load balancers remove it",
    )
    stop_timeout: float = setting(
        "BUSYAPI_STOP_TIMEOUT",
        15.0,
        "seconds",
        "maximum time to answer accepted requests, after BUSYAPI_DRAIN_DELAY",
    )
    idempotency_ttl: int = setting(
        "BUSYAPI_IDEMPOTENCY_TTL",
        3600,
        "seconds",
        "how long an Idempotency-Key is stored (up to a third longer); meanwhile each key takes 135"
        " bytes of Valkey's memory (180 of Redis 7's)",
        minimum=1,
        maximum=MAX_KEY_TTL_SECONDS,
    )
    idempotency_keys: int = setting(
        "BUSYAPI_IDEMPOTENCY_KEYS",
        0,
        "keys",
        "Idempotency-Keys that a partition may store; above it, a post with a new key gets 503."
        " 0: half of Redis's maxmemory, divided by the partitions, or 2,000,000 without one",
        maximum=MAX_BOUND_USAGES,
    )
    tokens_file: str = setting(
        "BUSYAPI_TOKENS_FILE",
        "",
        "path",
        "enables authentication: a TOML file with a table [tokens.NAME] for each token, or a folder"
        " of such files *.toml; read again when they change",
    )
    jwt_keys: str = setting(
        "BUSYAPI_JWT_KEYS",
        "",
        "https URL or path",
        "enables JWTs: the JSON Web Key Set of their provider, such as"
        " https://provider/.well-known/jwks.json",
    )
    jwt_issuer: str = setting(
        "BUSYAPI_JWT_ISSUER", "", "", "the `iss` of a JWT; required with BUSYAPI_JWT_KEYS"
    )
    jwt_audience: str = setting(
        "BUSYAPI_JWT_AUDIENCE",
        "",
        "names, separated by commas",
        "the `aud` of a JWT has one of them; required with BUSYAPI_JWT_KEYS",
    )
    jwt_required_claims: str = setting(
        "BUSYAPI_JWT_REQUIRED_CLAIMS",
        "",
        "`name` or `name=value`, separated by commas",
        "what a JWT must also claim",
    )
    jwt_leeway: float = setting(
        "BUSYAPI_JWT_LEEWAY",
        30.0,
        "seconds",
        "by which the clock of a JWT's provider may differ",
        maximum=MAX_LEEWAY_SECONDS,
    )
    jwt_scope_claims: str = setting(
        "BUSYAPI_JWT_SCOPE_CLAIMS",
        "scope,scp",
        "names or paths, separated by commas",
        "the first of these claims that a JWT has is its scopes: text with blanks, or a list",
    )
    jwt_scope_prefix: str = setting(
        "BUSYAPI_JWT_SCOPE_PREFIX",
        "",
        "",
        "what precedes a scope in a JWT, such as `usages:` in `usages:write`",
    )
    jwt_tenant_claim: str = setting(
        "BUSYAPI_JWT_TENANT_CLAIM", "tenant", "name or path", "the claim with the tenant"
    )
    jwt_patient_claim: str = setting(
        "BUSYAPI_JWT_PATIENT_CLAIM",
        "patient",
        "name or path",
        "the claim with the only patient whose usages may be sent or read",
    )
    jwt_rate_claim: str = setting(
        "BUSYAPI_JWT_RATE_CLAIM", "rate", "name or path", "the claim with usages per second"
    )
    jwt_refresh: float = setting(
        "BUSYAPI_JWT_REFRESH",
        45.0,
        "seconds",
        "between two fetches of the keys from a URL; a key that the provider removes is used until"
        " the next one",
        minimum=1,
        maximum=86_400,
    )
    jwt_keep_keys: float = setting(
        "BUSYAPI_JWT_KEEP_KEYS",
        86_400.0,
        "seconds",
        "how long the last good keys are used while the provider does not answer",
    )
    jwt_ca_file: str = setting(
        "BUSYAPI_JWT_CA_FILE", "", "path", "the CA of a provider that the system does not trust"
    )
    anonymous: str = setting(
        "BUSYAPI_ANONYMOUS",
        "",
        "",
        "what a request without a credential may do; empty: nothing",
        choices=ANONYMOUS_SCOPES,
    )
    trusted_proxies: str = setting(
        "BUSYAPI_TRUSTED_PROXIES",
        "",
        "networks, separated by commas",
        "trusted proxies, such as 10.1.0.0/16: their headers about a client are used,"
        " X-Forwarded-For and those of BUSYAPI_CLIENT_CERTIFICATES",
    )
    client_certificates: str = setting(
        "BUSYAPI_CLIENT_CERTIFICATES",
        "",
        "",
        "in which headers trusted proxies name client certificates; the names are in"
        " BUSYAPI_TOKENS_FILE, in tables [certificates.NAME]. envoy: X-Forwarded-Client-Cert."
        " nginx: ssl-client-verify and ssl-client-subject-dn, as ingress-nginx",
        choices=CERTIFICATE_FORMS,
    )
    writer_salt_file: str = setting(
        "BUSYAPI_WRITER_SALT_FILE",
        "",
        "path",
        "a file with a secret of at least 32 bytes, the same for all API processes: a usage that is"
        " posted with a credential then keeps its tenant and a salted digest of the credential, for"
        " the scopes read:own and read:tenant",
    )
    rate_limit: float = setting(
        "BUSYAPI_RATE_LIMIT",
        0.0,
        "usages per second",
        "for each credential without its own rate, over all processes; or for each address without"
        " a credential, in each process. An HTTP batch counts its usages, a read counts one. 0: no"
        " limit",
    )
    tenant_rate_limit: float = setting(
        "BUSYAPI_TENANT_RATE_LIMIT",
        0.0,
        "usages per second",
        "for all credentials of a tenant together, over all processes, unless [tenants.NAME] in"
        " BUSYAPI_TOKENS_FILE has its rate; 0: no limit",
    )
    cors_origins: str = setting(
        "BUSYAPI_CORS_ORIGINS",
        "",
        "origins, separated by commas",
        "web pages of these origins may call the API from a browser",
    )
    fast_path: str = setting(
        "BUSYAPI_FAST_PATH",
        "on",
        "",
        "off: Sanic serves every request",
        choices=SWITCH,
    )
    archive_dir: str = setting(
        "BUSYAPI_ARCHIVE_DIR", "/var/lib/busyapi/archive", "path", "the folder of the archive"
    )
    lake_warehouse: str = setting(
        "BUSYAPI_LAKE_WAREHOUSE",
        "",
        "path or URI",
        "for `busyapi lake`: below which folder, or s3://bucket/path, the table is created, or the"
        " name that a REST catalog has for that; empty: lake, beside the archive's folder",
    )
    lake_catalog: str = setting(
        "BUSYAPI_LAKE_CATALOG",
        "",
        "URI",
        "for `busyapi lake`: an Iceberg REST catalog (https://…) or an SQL database; empty: SQLite"
        " in the warehouse's folder",
    )
    lake_table: str = setting(
        "BUSYAPI_LAKE_TABLE", "busyapi.usages", "namespace.name", "for `busyapi lake`: the table"
    )
    lake_interval: float = setting(
        "BUSYAPI_LAKE_INTERVAL",
        60.0,
        "seconds",
        "for `busyapi lake`: how often it looks for finished segments",
        minimum=0.1,
    )
    lake_metrics_port: int = setting(
        "BUSYAPI_LAKE_METRICS_PORT",
        9110,
        "TCP port",
        "for `busyapi lake`: where Prometheus scrapes it, unless it runs with --once; each process"
        " of a machine needs its own. Do not expose it",
        maximum=MAX_PORT,
    )
    lake_snapshot_hours: int = setting(
        "BUSYAPI_LAKE_SNAPSHOT_HOURS",
        24,
        "hours",
        "for `busyapi lake`: how long a snapshot of the table is kept after it was replaced, so how"
        " long a query may take",
        minimum=1,
        maximum=100_000,
    )
    segment_bytes: int = setting(
        "BUSYAPI_SEGMENT_BYTES", 67_108_864, "bytes", "a segment is closed at this size", minimum=1
    )
    segment_age: float = setting(
        "BUSYAPI_SEGMENT_AGE", 3600.0, "seconds", "a segment closes at this age and midnight UTC"
    )
    archive_format: int = setting(
        "BUSYAPI_ARCHIVE_FORMAT",
        2,
        "version",
        "of new segments. 1: an archive of 0.2.0 stays one that 0.2.0 can read after a rollback",
        minimum=1,
        maximum=2,
    )
    retention_days: int = setting(
        "BUSYAPI_RETENTION_DAYS", 0, "days", "older segments are deleted; 0 keeps all"
    )
    audit: str = setting(
        "BUSYAPI_AUDIT",
        "auto",
        "",
        "required: a read is answered after its record is on the flusher's disk, and gets 503 if"
        " that fails. background: reads do not wait for it. auto: required if reading needs a"
        " credential, otherwise off",
        choices=AUDIT_MODES,
    )
    audit_retention_days: int = setting(
        "BUSYAPI_AUDIT_RETENTION_DAYS",
        0,
        "days",
        "older files of the audit trail are deleted; 0 keeps all",
    )
    verify_interval: float = setting(
        "BUSYAPI_VERIFY_INTERVAL", 604_800.0, "seconds", "between verifications; 0: none"
    )
    log_level: str = setting(
        "BUSYAPI_LOG_LEVEL", "info", "", "how much to log", choices=("debug", "info", "warning")
    )

    @property
    def anonymous_scopes(self) -> frozenset[str]:
        """Scopes of a request without a credential."""
        return frozenset(filter(None, self.anonymous.split(",")))

    @property
    def has_credentials(self) -> bool:
        """Return whether clients can have credentials."""
        return bool(self.tokens_file or self.jwt_keys)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read and check all settings.

        Raises:
            ConfigError: a value has a wrong type or is not allowed; the message names the setting.
        """
        values: dict[str, Any] = {}
        variables = apply_new_names(environment)
        for row in fields(cls):
            raw = variables.get(row.metadata["name"])
            if raw is not None and raw != "":
                values[row.name] = _parse(raw, type(row.default), row.metadata)
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
        raise ConfigError(f"{name} must be from {minimum} to {maximum} ({meta['unit']})")
    return value

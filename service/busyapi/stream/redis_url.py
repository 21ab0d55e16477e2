"""Redis URLs: `redis://host:6379` and its forms for Sentinels and a cluster."""

from urllib.parse import unquote, urlsplit

from busyapi.errors import ConfigError
from busyapi.stream.credentials import DEFAULT_TLS_FILES, Credentials, TlsFiles
from busyapi.stream.endpoint import Address, Endpoint
from busyapi.stream.keys import PREFIX, check_prefix

MODES = {"redis": "standalone", "redis+sentinel": "sentinel", "redis+cluster": "cluster"}
DEFAULT_PORTS = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}


def parse_redis_url(
    url: str,
    *,
    username: str = "",
    password: str = "",
    password_file: str = "",
    tls_files: TlsFiles = DEFAULT_TLS_FILES,
    prefix: str = PREFIX,
    installation: str = "",
) -> Endpoint:
    """Parse a Redis URL.

    Raises:
        ConfigError: the URL has none of the three forms; the message shows them. Or the files of
            TLS do not fit.
    """
    # Not urlsplit: newer versions accept brackets (IPv6) in the first host only.
    scheme, _, rest = url.partition("://")
    netloc, _, path = rest.partition("/")
    scheme = scheme.lower()
    tls = scheme.startswith("rediss")
    mode = MODES.get(scheme.replace("rediss", "redis", 1))
    if mode is None or not netloc:
        raise ConfigError(
            "BUSYAPI_REDIS_URL must look like redis://host:6379,"
            " redis+sentinel://host:26379,host:26379/service or redis+cluster://host:6379,host:6379"
        )
    if "://" in rest:
        raise ConfigError(
            "BUSYAPI_REDIS_URL: separate several servers by blanks, such as"
            " 0-1=redis://one:6379 2-3=redis://two:6379"
        )
    tls_files.check(tls=tls)
    userinfo, _, hosts = netloc.rpartition("@")
    user, _, secret = userinfo.partition(":")
    addresses = tuple(_parse_address(host, DEFAULT_PORTS[mode]) for host in hosts.split(","))
    service = path.strip("/")
    if mode == "sentinel" and not service:
        raise ConfigError("BUSYAPI_REDIS_URL: a sentinel URL must end in /<name of the service>")
    if mode != "sentinel" and service not in {"", "0"}:
        raise ConfigError("BUSYAPI_REDIS_URL: busyapi uses only database 0, as a cluster does")
    if mode == "standalone" and len(addresses) > 1:
        raise ConfigError(
            "BUSYAPI_REDIS_URL must name one host only, or use redis+cluster or redis+sentinel"
        )
    return Endpoint(
        mode=mode,
        hosts=addresses,
        service=service,
        login=Credentials(
            username=username or unquote(user),
            password=password or unquote(secret),
            password_file=password_file,
        ),
        tls=tls,
        tls_files=tls_files,
        prefix=check_prefix(prefix),
        installation=installation,
    )


def _parse_address(text: str, default: int) -> Address:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ConfigError("BUSYAPI_REDIS_URL has an invalid host or port")
    return host, port or default

"""TLS between the processes of an installation, with files that may be replaced at any time.

Each new connection uses the certificates as they are then. Existing ones are not closed.
"""

import ssl
from collections.abc import Callable
from typing import Any

from busyapi.errors import ConfigError
from busyapi.web.reloaded_files import ReloadedFiles


class ReloadingContext(ssl.SSLContext):
    """A context that delegates each new connection to one made from the files of that time."""

    _files: ReloadedFiles[ssl.SSLContext]

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        """Begin a connection. asyncio and uvloop begin every connection with this method."""
        return self._files.value.wrap_bio(*arguments, **options)


def make_server_context(cert: str, key: str, client_ca: str) -> ssl.SSLContext | None:
    """Return the context of a port, or None without a certificate.

    With `client_ca`, clients need a certificate that this authority has issued.

    Raises:
        ConfigError: a file cannot be used, or only one of certificate and key is set.
    """
    if not cert and not key:
        if client_ca:
            raise ConfigError(
                "BUSYAPI_ARCHIVE_CLIENT_CA_FILE needs TLS: set BUSYAPI_ARCHIVE_CERT_FILE and"
                " BUSYAPI_ARCHIVE_KEY_FILE"
            )
        return None
    if not cert or not key:
        raise ConfigError("Set BUSYAPI_ARCHIVE_CERT_FILE and BUSYAPI_ARCHIVE_KEY_FILE, or neither")

    def load() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load_pair(context, cert, key, "BUSYAPI_ARCHIVE_CERT_FILE")
        if client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            _load_authority(context, client_ca, "BUSYAPI_ARCHIVE_CLIENT_CA_FILE")
        return context

    files = [cert, key, *([client_ca] if client_ca else [])]
    return _make_reloading(ssl.PROTOCOL_TLS_SERVER, files, load)


def make_client_context(ca: str, cert: str, key: str) -> ssl.SSLContext:
    """Return the context for connections to such a port; without `ca`, trust the system's.

    Raises:
        ConfigError: a file cannot be used, or only one of certificate and key is set.
    """
    if bool(cert) != bool(key):
        raise ConfigError(
            "Set BUSYAPI_ARCHIVE_CLIENT_CERT_FILE and BUSYAPI_ARCHIVE_CLIENT_KEY_FILE, or neither"
        )

    def load() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if ca:
            _load_authority(context, ca, "BUSYAPI_ARCHIVE_CA_FILE")
        else:
            context.load_default_certs()
        if cert:
            _load_pair(context, cert, key, "BUSYAPI_ARCHIVE_CLIENT_CERT_FILE")
        return context

    files = [file for file in (ca, cert, key) if file]
    return _make_reloading(ssl.PROTOCOL_TLS_CLIENT, files, load)


def _make_reloading(
    protocol: int, files: list[str], load: Callable[[], ssl.SSLContext]
) -> ReloadingContext:
    context = ReloadingContext(protocol)
    context._files = ReloadedFiles(files, load)  # noqa: SLF001 - its constructor is in C
    return context


def _load_pair(context: ssl.SSLContext, cert: str, key: str, setting: str) -> None:
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "not a certificate with its key"
        raise ConfigError(f"{setting} cannot be used: {cert}, {key}: {reason}") from None


def _load_authority(context: ssl.SSLContext, ca: str, setting: str) -> None:
    try:
        context.load_verify_locations(ca)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or "not a certificate"
        raise ConfigError(f"{setting} cannot be used: {ca}: {reason}") from None

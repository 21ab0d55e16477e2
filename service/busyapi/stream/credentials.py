"""What a connection to Redis shows and trusts: user and password, client certificate, CA.

Files are read for every connection, so that a rotated Secret takes effect without a restart. Open
connections stay.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from busyapi.errors import ConfigError, RedisUnavailable

SERVER_PASSWORD_FILE = "BUSYAPI_REDIS_PASSWORD_FILE"  # noqa: S105 - the name of a setting
SENTINEL_PASSWORD_FILE = "BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE"  # noqa: S105 - likewise


class Login(NamedTuple):
    """Credentials for AUTH. Without a username the password is the default user's."""

    username: str
    password: str


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """A user and its password, which may be in a file. All empty: no login."""

    username: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    setting: str = SERVER_PASSWORD_FILE
    """The setting of the file, for error messages."""

    def read_login(self) -> Login | None:
        """Return the login, with the current password of the file; None without credentials.

        Raises:
            RedisUnavailable: the file cannot be read.
        """
        password = self._read_file() if self.password_file else self.password
        return Login(self.username, password) if password or self.username else None

    def _read_file(self) -> str:
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise RedisUnavailable(f"{self.setting}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RedisUnavailable(f"{self.setting} is not UTF-8") from None


NO_LOGIN = Credentials()


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """The files of TLS, for the servers and the Sentinels. Each may be missing."""

    ca_file: str = ""
    """Empty: the CAs that the system trusts."""
    cert_file: str = ""
    key_file: str = ""

    def check(self, *, tls: bool) -> None:
        """Check which files are set.

        Raises:
            ConfigError: the certificate has no key, the key no certificate, or TLS is off.
        """
        if bool(self.cert_file) != bool(self.key_file):
            raise ConfigError("Set BUSYAPI_REDIS_CERT_FILE and BUSYAPI_REDIS_KEY_FILE, or neither")
        if self.cert_file and not tls:
            raise ConfigError(
                "BUSYAPI_REDIS_CERT_FILE needs TLS: begin BUSYAPI_REDIS_URL with rediss"
            )

    def make_context(self) -> ssl.SSLContext:
        """Return the context of one connection, with the files as they are now.

        Raises:
            RedisUnavailable: a file cannot be used. It may be in the middle of a replacement.
        """
        # The default context checks certificate and name, and trusts the system's CAs.
        context = ssl.create_default_context()
        if self.ca_file:
            try:
                context.load_verify_locations(self.ca_file)
            except OSError as error:  # includes an invalid certificate
                reason = error.strerror or error
                raise RedisUnavailable(f"BUSYAPI_REDIS_CA_FILE: {reason}") from None
        if self.cert_file:
            try:
                # With the empty password an encrypted key is refused. Without it, OpenSSL would ask
                # for the password on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password="")
            except ssl.SSLError:
                raise RedisUnavailable(
                    "BUSYAPI_REDIS_CERT_FILE: not a certificate with its key, or the key has a"
                    " password"
                ) from None
            except OSError as error:
                raise RedisUnavailable(f"BUSYAPI_REDIS_CERT_FILE: {error.strerror}") from None
        return context


DEFAULT_TLS_FILES = TlsFiles()

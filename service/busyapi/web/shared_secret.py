"""The secret that the processes of an installation share: a file with one secret per line.

A client sends the first line and a server accepts every line. To rotate it, put the new secret
above the old one, wait until all processes have read the file, and remove the old one. A client
that is refused tries its other lines, so it does not matter who reads the file first.
"""

from hmac import compare_digest
from pathlib import Path

from busyapi.errors import ConfigError
from busyapi.web.reloaded_files import ReloadedFiles

MIN_SECRET_CHARACTERS = 16
MAX_SECRETS = 8

SharedSecret = ReloadedFiles[list[str]]


def read_shared_secret(file: str, setting: str) -> SharedSecret | None:
    """Return the secrets of a file, or None if no file is set.

    Raises:
        ConfigError: the file cannot be used. The message quotes no secret.
    """
    return ReloadedFiles([file], lambda: _load(file, setting)) if file else None


def _load(file: str, setting: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise ConfigError(f"{setting} cannot be read: {file}: {reason}") from None
    secrets = [line.strip() for line in lines if line.strip()]
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise ConfigError(f"{setting}: {file} must have 1 to {MAX_SECRETS} secrets, one per line")
    if any(len(text) < MIN_SECRET_CHARACTERS or not _is_token(text) for text in secrets):
        raise ConfigError(
            f"{setting}: each line of {file} must be {MIN_SECRET_CHARACTERS} or more visible"
            " characters without spaces"
        )
    return secrets


def _is_token(text: str) -> bool:
    return text.isprintable() and " " not in text


def is_authorized(header: str, secret: SharedSecret) -> bool:
    """Return whether an Authorization header carries one of the secrets."""
    scheme, _, token = header.partition(" ")
    sent = token.strip().encode(errors="surrogateescape")
    # Compare with each secret: the time shows neither where they differ nor which one matched.
    matches = [compare_digest(sent, known.encode()) for known in secret.value]
    return scheme.lower() == "bearer" and any(matches)

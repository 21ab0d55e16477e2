"""Tokens, a salt, and the writers that the archive must have for them."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from busyapi.api.stamper import Stamper
from busyapi.auth.credential import Credential
from busyapi.auth.token_file import parse_token_file
from busyapi.stamp import split_stamp
from testkit.processes import OPEN, Stack

SALT = b"0123456789abcdef" * 4


class StampedClient(NamedTuple):
    """A client with a token, and the writer in the stamps of its usages."""

    token: str
    writer: str


def configure_stamps(stack: Stack, folder: Path, tokens: Sequence[str]) -> list[StampedClient]:
    """Let the API processes of a stack stamp what is posted with these tokens, from their start.

    Each token has a tenant of its own. Clients without a token may still write and read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    salt, path = folder / "salt", folder / "tokens.toml"
    salt.write_bytes(SALT)
    path.write_text("".join(_render_table(token) for token in tokens))
    credentials = parse_token_file(path.read_bytes()).tokens
    for api in stack.apis:
        api.environment["BUSYAPI_ANONYMOUS"] = OPEN
        api.environment["BUSYAPI_TOKENS_FILE"] = str(path)
        api.environment["BUSYAPI_WRITER_SALT_FILE"] = str(salt)
    return [_make_client(token, credentials[_digest(token)]) for token in tokens]


def _digest(token: str) -> bytes:
    return sha256(token.encode()).digest()


def _render_table(token: str) -> str:
    return (
        f'[tokens.{token}]\nsha256 = "{_digest(token).hex()}"\n'
        f'scopes = ["write", "read:own"]\ntenant = "tenant of {token}"\n'
    )


def _make_client(token: str, credential: Credential) -> StampedClient:
    return StampedClient(token, find_writer(SALT, credential))


def find_writer(salt: bytes, credential: Credential) -> str:
    """Return the writer in the stamps of a credential's usages."""
    stamp = split_stamp(b"{}" + Stamper(salt).encode(credential)).stamp
    assert stamp
    return stamp.writer

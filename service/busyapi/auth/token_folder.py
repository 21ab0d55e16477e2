"""BUSYAPI_TOKENS_FILE as a folder: every `*.toml` in it is a file of credentials.

So each Secret of a cluster can be a file of its own. Other names are ignored: a file that an editor
left behind could have a revoked token.
"""

from collections.abc import Mapping
from pathlib import Path

from busyapi.auth.credential import Credential
from busyapi.auth.token_file import (
    CredentialFile,
    UnreadableCredentials,
    parse_token_file,
    read_token_file,
)
from busyapi.errors import ConfigError

MAX_FILES = 1000


def read_token_files(path: str) -> dict[str, bytes]:
    """Return the content of the file, or of each file in the folder, by its name.

    Raises:
        UnreadableCredentials: one cannot be read.
        ConfigError: a file is too large, or there are too many.
    """
    folder = Path(path)
    try:
        if not folder.is_dir():
            return {folder.name: read_token_file(path)}
        # A glob would find no file in a folder that cannot be read.
        files = sorted(file for file in folder.iterdir() if file.name.endswith(".toml"))
    except OSError as error:
        raise UnreadableCredentials(f"BUSYAPI_TOKENS_FILE cannot be read: {error}") from None
    if len(files) > MAX_FILES:
        raise _wrong_number(len(files))
    return {file.name: read_token_file(str(file)) for file in files}


def _wrong_number(files: int) -> ConfigError:
    return ConfigError(
        f"BUSYAPI_TOKENS_FILE is a folder with {files} files *.toml: it must have 1 to {MAX_FILES}"
    )


def parse_token_files(
    contents: Mapping[str, bytes], *, may_be_empty: bool = False
) -> CredentialFile:
    """Return the credentials of all files as one.

    Without `may_be_empty` there must be a file, and each must have a line.

    Raises:
        ConfigError: a file is invalid, or two have the same credential.
    """
    if not contents and not may_be_empty:
        raise _wrong_number(0)
    tokens: dict[bytes, Credential] = {}
    certificates: dict[tuple[str, str], Credential] = {}
    tenants: dict[str, float] = {}
    ids: set[str] = set()
    has_old_format = False
    for name, content in contents.items():
        file = _parse(name, content, may_be_empty=may_be_empty)
        new_ids = {entry.id for entry in (*file.tokens.values(), *file.certificates.values())}
        is_known = tokens.keys() & file.tokens or certificates.keys() & file.certificates
        if is_known or ids & new_ids or tenants.keys() & file.tenants:
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE: {name} has a name or a credential that another file has too"
            )
        ids |= new_ids
        tokens |= file.tokens
        certificates |= file.certificates
        tenants |= file.tenants
        has_old_format |= file.has_old_format
    return CredentialFile(tokens, certificates, tenants, has_old_format)


def _parse(name: str, content: bytes, *, may_be_empty: bool) -> CredentialFile:
    try:
        return parse_token_file(content, may_be_empty=may_be_empty)
    except ConfigError as error:
        problem = str(error)
    raise ConfigError(f"{problem} (in {name})")

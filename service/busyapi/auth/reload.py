"""Reloads the credentials while the process runs: a revoked one ends within a minute.

The file is read every few seconds and compared by its content. So an edit in place, a rename, and
the change of the link with which Kubernetes replaces a Secret's files are all noticed, whatever the
file's time. The kubelet itself takes up to a minute by default to write a changed Secret.

    valid                   its credentials
    without entries         none: all are revoked
    invalid                 the former ones, until it is corrected
    deleted, unreadable     the former ones for KEEP_SECONDS, then none
"""

import asyncio
from collections.abc import Callable
from time import monotonic

import structlog

from busyapi.auth.authenticator import Authenticator
from busyapi.auth.token_file import CredentialFile, UnreadableCredentials
from busyapi.auth.token_folder import parse_token_files, read_token_files
from busyapi.errors import ConfigError

log = structlog.get_logger()

TOKEN_FILE_CHECK_SECONDS = 5.0
KEEP_SECONDS = 300.0
"""How long the last credentials are used while the file cannot be read. A volume may be unavailable
for a while, and an operator may delete the file to revoke them."""


class TokenFileWatcher:
    """Watches the file of credentials, or a folder of them. An invalid new file changes nothing."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._contents: dict[str, bytes] = {}
        self._read_at = monotonic()
        self._problem = ""
        self.on_failure: Callable[[], None] = lambda: None
        """Called for each content that cannot be used."""

    def load(self) -> CredentialFile:
        """Read the file at the start.

        Raises:
            ConfigError: it cannot be used.
        """
        self._contents = read_token_files(self._path)
        file = parse_token_files(self._contents)
        if file.has_old_format:
            log.warning("token_file_format_old", file=self._path)
        return file

    async def run(self, authenticator: Authenticator) -> None:
        """Watch the file until this is cancelled."""
        while True:
            await asyncio.sleep(TOKEN_FILE_CHECK_SECONDS)
            # In a thread: a large file takes seconds.
            file = await asyncio.to_thread(self.reload)
            if file is not None:
                authenticator.replace_file(file)
                count = _count(file)
                log.info("credentials_reloaded", source="file", credentials=count)
                if not count:
                    log.error("credentials_all_revoked", file=self._path)

    def reload(self) -> CredentialFile | None:
        """Return the new credentials; None if they are unchanged or cannot be used."""
        try:
            contents = read_token_files(self._path)
            self._read_at = monotonic()
            if contents == self._contents:
                self._problem = ""
                return None
            file = parse_token_files(contents, may_be_empty=True)
        except UnreadableCredentials as error:
            self._record_failure(str(error))
            return self._drop_old_credentials()
        except ConfigError as error:
            self._record_failure(str(error))
            return None
        self._contents, self._problem = contents, ""
        return file

    def _drop_old_credentials(self) -> CredentialFile | None:
        if not self._contents or monotonic() - self._read_at <= KEEP_SECONDS:
            return None
        self._contents = {}
        return CredentialFile()

    def _record_failure(self, problem: str) -> None:
        self.on_failure()
        if problem != self._problem:  # not every few seconds
            self._problem = problem
            log.error("credentials_not_reloaded", source="file", detail=problem)


def _count(file: CredentialFile) -> int:
    return len(file.tokens) + len(file.certificates)

"""The old format of the token file, one line for each token: its rights, a space, the token.

    # a device, then a clinic's reader
    write 3f9c0d…
    read  77ab21…
    write,read 51ee08…

It is read in this release, with a warning, and no longer in the next one.
"""

import re
from hashlib import sha256

from busyapi.auth.credential import Credential
from busyapi.errors import ConfigError

RIGHTS = {"write", "read"}
COMMENT_PATTERN = re.compile(r"(^|\s)#.*")
"""A # within a token belongs to the token."""


def parse_token_lines(text: str) -> dict[bytes, Credential]:
    """Return the credential of each token's digest.

    Raises:
        ConfigError: a line is invalid; the message names its number, not the token.
    """
    credentials: dict[bytes, Credential] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = COMMENT_PATTERN.sub("", line).split()
        if not words:
            continue
        rights = frozenset(words[0].split(","))
        if len(words) != 2 or not rights <= RIGHTS:  # noqa: PLR2004 - rights and token
            raise ConfigError(
                f"BUSYAPI_TOKENS_FILE, line {number}: write `write`, `read` or `write,read`,"
                " a space, and the token; or a table [tokens.NAME]"
            )
        digest = sha256(words[1].encode())
        # Idempotency-Keys of 0.2.0 belong to this id.
        credentials[digest.digest()] = Credential(digest.hexdigest(), f"line-{number}", rights)
    return credentials

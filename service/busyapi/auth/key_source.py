"""Where the keys of a provider come from: its URL or a file.

Keys are fetched at the start, on a timer and, at most once in MIN_REFRESH_SECONDS, for a token with
an unknown key: a provider may sign with a new key at once. While the provider does not answer, the
last good keys are used, for the time of a setting.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit

import aiohttp
import structlog

from busyapi.auth.key_set import KeySet, parse_key_set
from busyapi.errors import ConfigError

log = structlog.get_logger()

FETCH_SECONDS = 5.0
MAX_DOCUMENT_BYTES = 262_144
MIN_REFRESH_SECONDS = 2.0
FILE_CHECK_SECONDS = 5.0
RETRY_SECONDS = 2.0
"""Between attempts before the first keys are there."""
LOOPBACK = {"localhost", "127.0.0.1", "::1"}

Fetch = Callable[[], Awaitable[bytes]]


class KeySource:
    """The current keys, and what keeps them current."""

    def __init__(self, fetch: Fetch, *, refresh_seconds: float, keep_seconds: float) -> None:
        self._fetch = fetch
        self._refresh_seconds = refresh_seconds
        self._keep_seconds = keep_seconds
        self._content = b""
        self._keys: KeySet | None = None
        self._fetched_at = self._unknown_key_at = float("-inf")
        self._problem = ""
        self._refreshing: asyncio.Task[None] | None = None
        self.on_change: Callable[[KeySet | None], None] = lambda _: None
        """Called with new keys, and with None when the last ones are too old."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called for each attempt that failed."""

    async def run(self) -> None:
        """Keep the keys current until this is cancelled."""
        while True:
            await self.refresh()
            has_keys = self._keys is not None
            await asyncio.sleep(self._refresh_seconds if has_keys else RETRY_SECONDS)

    async def refresh_for_unknown_key(self) -> bool:
        """Fetch the keys because a token names an unknown one; return whether they were fetched.

        So an attacker with random ids causes few requests to the provider. A fetch by the timer
        does not count: a new key may be used right after it.
        """
        if self._refreshing is None:
            now = monotonic()
            if now - self._unknown_key_at < MIN_REFRESH_SECONDS:
                return False
            self._unknown_key_at = now
        await self.refresh()
        return True

    async def refresh(self) -> None:
        """Fetch the keys once, together with all other callers."""
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh())
        # Of many requests that wait, one may be cancelled.
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            content = await self._fetch()
            if content != self._content:
                self._replace_keys(parse_key_set(content))
                self._content = content
            self._fetched_at, self._problem = monotonic(), ""
        except (aiohttp.ClientError, OSError, TimeoutError, ConfigError) as error:
            self._record_failure(f"{type(error).__name__}: {error}")
        finally:
            self._refreshing = None

    def _replace_keys(self, keys: KeySet) -> None:
        # A provider may write the same keys in another way at each fetch. All tokens would be
        # verified again.
        if self._keys is None or not keys.has_same_keys(self._keys):
            self._keys = keys
            self.on_change(keys)
            log.info("credentials_reloaded", source="keys", credentials=len(keys))

    def _record_failure(self, problem: str) -> None:
        self.on_failure()
        if problem != self._problem:
            self._problem = problem
            log.error("credentials_not_reloaded", source="keys", detail=problem)
        if self._keys is not None and monotonic() - self._fetched_at > self._keep_seconds:
            self._content, self._keys = b"", None
            self.on_change(None)


def make_key_source(
    location: str, *, ca_file: str, refresh_seconds: float, keep_seconds: float
) -> KeySource:
    """Return the source for a URL or a path.

    Raises:
        ConfigError: the URL is not https, or the file of the CA cannot be used.
    """
    if "://" not in location:
        return KeySource(
            _make_reader(location), refresh_seconds=FILE_CHECK_SECONDS, keep_seconds=keep_seconds
        )
    url = urlsplit(location)
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOOPBACK):
        raise ConfigError(
            "BUSYAPI_JWT_KEYS must be an https URL or a path: with http, a host in between could"
            " replace the keys"
        )
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise ConfigError(f"BUSYAPI_JWT_CA_FILE cannot be used: {error}") from None
    return KeySource(
        _make_fetcher(location, context),
        refresh_seconds=refresh_seconds,
        keep_seconds=keep_seconds,
    )


def _make_reader(path: str) -> Fetch:
    async def read() -> bytes:
        return await asyncio.to_thread(Path(path).read_bytes)

    return read


def _make_fetcher(url: str, context: ssl.SSLContext) -> Fetch:
    async def fetch() -> bytes:
        timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, ssl=context, allow_redirects=False) as response,
        ):
            if response.status != 200:  # noqa: PLR2004 - OK
                raise ConfigError(f"the provider answered {response.status}")
            content = bytearray()
            async for chunk in response.content.iter_any():
                content += chunk
                if len(content) > MAX_DOCUMENT_BYTES:
                    raise ConfigError(f"the key set is larger than {MAX_DOCUMENT_BYTES} bytes")
            return bytes(content)

    return fetch

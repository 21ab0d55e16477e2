"""The JSON of a stored usage, the same for the buffer and the archive."""

from datetime import UTC, datetime
from functools import lru_cache

from busyapi.ids import UsageId

MAX_RECEIVED_MS = 253_402_300_799_999
"""The end of the year 9999: the last time that RFC 3339 can write."""
_SECOND_CHARACTERS = len("2026-11-23T19:12:00")


def format_received_at(received_ms: int) -> str:
    """Return milliseconds since 1970 as RFC 3339 in UTC."""
    return f"{_format_second(received_ms // 1000)}.{received_ms % 1000:03d}Z"


@lru_cache(maxsize=64)
def _format_second(seconds: int) -> str:
    # Usages arrive in order of time: the same second thousands of times, then never again.
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:_SECOND_CHARACTERS]


def render_usage(usage_id: UsageId, received_ms: int, line: bytes) -> bytes:
    """Return one stored usage as JSON, without a newline."""
    return b'{"id":%d,"receivedAt":"%b","usage":%b}' % (
        usage_id,
        format_received_at(received_ms).encode(),
        line,
    )

"""A usage as it is read back: one line of JSON, the same from the buffer and the archive."""

from datetime import UTC, datetime

from busyapi.ids import UsageId


def received_at(received_ms: int) -> str:
    """Give milliseconds since 1970 as RFC 3339 in UTC."""
    moment = datetime.fromtimestamp(received_ms // 1000, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") + f".{received_ms % 1000:03d}Z"


def record(usage: UsageId, received_ms: int, line: bytes) -> bytes:
    """Render one record, without a newline."""
    return b'{"id":%d,"receivedAt":"%b","usage":%b}' % (
        usage,
        received_at(received_ms).encode(),
        line,
    )

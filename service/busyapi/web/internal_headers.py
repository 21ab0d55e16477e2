"""The headers of requests from the API to a flusher, besides X-Request-ID."""

AUDIT_HEADER = "x-busyapi-audit"
"""The entry to record before the lookup is answered."""
AUDITED_HEADER = "x-busyapi-audited"
"""In the answer: `yes` if the entry is on disk, `no` if this failed."""

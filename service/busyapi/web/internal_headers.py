"""What requests from the API to a flusher share: headers, besides X-Request-ID, and a text."""

AUDIT_HEADER = "x-busyapi-audit"
"""The entry to record before the lookup is answered."""
AUDITED_HEADER = "x-busyapi-audited"
"""In the answer: `yes` if the entry is on disk, `no` if this failed."""
PATIENT_PLACE = "{patient}"
"""In the resource of a query's entry: the flusher, which has the key, puts the digest here."""

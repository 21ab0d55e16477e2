"""The audit trail: who read, exported or was refused, in hash-chained files beside the archive."""

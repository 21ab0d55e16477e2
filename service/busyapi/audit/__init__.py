"""The audit trail: who read, exported or was refused, in hash-chained files of each partition."""

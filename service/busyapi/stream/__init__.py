"""Step 4: a partition in Redis."""

"""Step 3: group commit, which stores many usages with one call to Redis."""

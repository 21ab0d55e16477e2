"""Step 3: group commit, many usages in one call to Redis."""

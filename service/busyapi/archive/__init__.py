"""Step 6: write usages to files that any zstd reader can read."""

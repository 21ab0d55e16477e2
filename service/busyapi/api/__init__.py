"""Step 1 of a usage: HTTP."""

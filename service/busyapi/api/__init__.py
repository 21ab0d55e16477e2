"""Step 1: HTTP."""

"""Step 2: turn a body into one canonical line of JSON for each usage, or list every error."""

"""Step 2: bytes to one canonical line, or every reason why not."""

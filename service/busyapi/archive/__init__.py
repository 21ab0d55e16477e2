"""Step 6: files anyone can read."""

"""Step 5: from stream to archive."""

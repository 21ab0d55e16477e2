"""All of it on one machine: Valkey, API processes, a flusher for each partition."""

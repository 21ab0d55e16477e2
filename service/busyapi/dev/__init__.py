"""All parts on one machine: Valkey, API processes and flushers, and one process that minds them."""

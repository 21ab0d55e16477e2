"""All parts on one machine: Valkey, API processes, flushers, and a process that supervises them."""

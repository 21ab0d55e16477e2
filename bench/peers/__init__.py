"""Software from the public registries that does the same work, as references."""

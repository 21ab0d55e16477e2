"""What anyone can install from the registries, doing the same work: the benchmark's references."""

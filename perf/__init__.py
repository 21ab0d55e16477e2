"""Shared by bench/ and loadtest/: load, stacks, samples, machine figures and reconciliation."""

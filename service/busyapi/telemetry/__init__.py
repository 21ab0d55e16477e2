"""Metrics and logs: what a process reports."""

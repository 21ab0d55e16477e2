"""Runbooks as data, rules for them, and a shell that runs their commands."""

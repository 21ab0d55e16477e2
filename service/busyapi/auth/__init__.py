"""Credentials: verify which client sends a request."""

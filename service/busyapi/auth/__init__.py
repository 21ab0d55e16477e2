"""Credentials: who sends a request, and what that client may do."""

"""Builds the objects of each role from settings."""

"""Servers, processes, load and checks for tests, e2e, perf, bench and tools."""

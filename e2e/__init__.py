"""Scenarios on a real cluster: `make e2e`, or `python -m e2e --help`.

Not for pytest: one run shares a cluster, a release and a load between scenarios, in an order, and
writes a report of what it saw. What judges a run is tested without a cluster in tests/e2e.
"""

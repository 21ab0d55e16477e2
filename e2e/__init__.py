"""Scenarios on a real cluster: `make e2e`, or `python -m e2e --help`.

They do not use pytest: they run in a fixed order, share a cluster, a release and a load, and write
a report. tests/e2e tests the checks without a cluster.
"""

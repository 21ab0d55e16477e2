"""Scenarios on a real cluster: `make e2e`, or `python -m e2e --help`.

They do not use pytest: scenarios share a cluster, a release and a load in a fixed order, and write
a report. tests/e2e tests the checks of a run without a cluster.
"""

"""The chart rendered as objects, and judges of it: schemas, promtool, policies."""

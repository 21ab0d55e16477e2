"""Tests of a release's parts: locks, workflows, builds, signatures and a registry."""

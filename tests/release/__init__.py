"""Tests of what a release consists of: locks, workflows, builds, signatures and a registry."""

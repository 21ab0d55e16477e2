"""Alerts and panels against real faults: Prometheus scrapes a running stack."""

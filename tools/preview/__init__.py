"""`make dashboards-preview`: the chart's dashboards, drawn from what a real Prometheus answers.

Grafana is not needed: every panel's query is run as Grafana would, and drawn where the dashboard
says. A panel without data that should have some makes the run fail.
"""

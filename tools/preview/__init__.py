"""`make dashboards-preview`: pictures of the chart's dashboards, with data of a real Prometheus.

Grafana is not needed: the preview runs each panel's query as Grafana does, and draws the panel in
its place. The run fails if a panel lacks data that it should have.
"""

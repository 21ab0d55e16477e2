"""The Grafana dashboards of the chart, as code: what a panel asks, and what it tells a reader.

`make generate ARGS=dashboards` writes them to charts/busyapi/dashboards. A panel is a line or two
in `overview`, `data_path` or `resources`; `panels` knows what Grafana wants of one, `board` where
it is and what a dashboard has around its panels.
"""

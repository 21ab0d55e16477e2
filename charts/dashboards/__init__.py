"""The Grafana dashboards of the chart, as code.

`make generate ARGS=dashboards` writes them to charts/busyapi/dashboards. `overview`, `data_path`
and `resources` define the panels, `panels` renders one as JSON, and `board` lays them out and adds
links and variables.
"""

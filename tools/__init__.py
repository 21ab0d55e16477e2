"""Developers' commands: generated files, pictures of dashboards, the site, the chart's releases."""

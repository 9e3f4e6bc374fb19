"""The metrics of the report, one per module.

To add one, write a module here that defines `METRIC`, a `registry.Metric`. The registry finds it;
report.json, the page, the terminal and the manifest then show it.
"""

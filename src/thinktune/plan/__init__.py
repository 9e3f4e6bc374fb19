"""The plan: how a recipe is run on a node, what that takes, and what would do when it does not fit.

Pure functions of recipe and catalog: no clock, network, environment or files, and only
`thinktune.schema` is imported. The command line and the launcher call `plan.make_plan`.
"""

"""The plan: how a recipe is run on a node, what that takes, and what would do when it does not fit.

`training` plans the training, `prep` and `evaluation` the stages around it, and `run` sums them up.

Pure functions of recipe and catalog: no clock, network, environment or files, and only
`thinktune.schema` is imported.
"""

"""Runs started and watched: on this machine (`local`) or on a cluster (`submit`, `conductor`, `why`).

Makes tasks from recipes, talks to helm and to the Kubernetes API; loads no torch.
"""

"""What is written down and passed around: recipe, catalog, task, manifest, errors, exit codes.

Closed, frozen models and nothing else: this package reads no clock, network or environment, and
every other package may import it.
"""

"""Servers on a cluster: what they need of runs, the releases that they are, and their adapters."""

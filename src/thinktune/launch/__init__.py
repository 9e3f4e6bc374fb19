"""From a recipe to running stages: tasks and run ids, and the executor on this machine.

Called by the command line. It decides nothing about memory or speed, that is the plan's; and it
runs each stage as its own process, as a cluster would.
"""

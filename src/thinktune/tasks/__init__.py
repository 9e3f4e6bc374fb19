"""What runs inside the containers: each stage is `python -m thinktune.tasks.<stage> --task FILE`.

A task imports neither the plan nor the launcher: all it needs is in its task file, and the
manifests of the stages before it are its only input.
"""

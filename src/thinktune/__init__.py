"""thinktune: containerized batch jobs that fine-tune models that think.

Layers, outermost first, held by import-linter: cli → (launch | tasks) → (plan | store) → spec.
"""

__version__ = "0.1.0"

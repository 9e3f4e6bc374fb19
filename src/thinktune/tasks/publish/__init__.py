"""A finished run made into files that others load, and brought to where they find them.

No stage: it reads what stages have committed, and commits nothing.
"""

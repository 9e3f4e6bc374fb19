"""Text as models read and write it: prompts, tokens, think parts, final answers and their checks.

Prep, evaluation, serving and reinforcement learning use this package, so that all of them render
and read text in one way. It imports `thinktune.schema` alone, and never torch.
"""

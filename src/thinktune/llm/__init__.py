"""Asking language models: rendered requests in, checked replies out, nothing paid for twice.

`asking` is the way in, for prep's written fields (`generate`) and evaluation's judge alike; below
it are the live loop and batches, the cache of raw replies in the store, and the budget. Alone in
the package to import `openai`, `anthropic` and `httpx2`, and only once something is sent.
"""

"""What computes a server's answers: vLLM's own server, or ours over transformers.

Both are processes of their own on this machine's loopback, with a key that nobody else knows, and
take prompts of token ids at `POST /v1/completions`. `choose` says which and by what command,
`process` starts, watches and restarts it, `client` asks it.
"""

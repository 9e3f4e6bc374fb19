"""What a server takes: weights, adapters, KV cache, how it is spread over GPUs, what would fit."""

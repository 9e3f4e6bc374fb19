"""What a training takes: memory by cause, topology, time, and what would fit instead."""

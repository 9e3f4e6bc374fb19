"""What surrounds a stage in its container: entry point, progress, signals, ranks, nodes."""

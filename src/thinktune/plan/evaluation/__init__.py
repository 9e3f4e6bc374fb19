"""What an evaluation takes: engine, answers at once, memory and time."""

"""Stage evaluate: the held-out questions to base and tuned, judged in pairs."""

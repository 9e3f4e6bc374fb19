"""Supervised fine-tuning: the model learns to write the completions of prep's examples."""

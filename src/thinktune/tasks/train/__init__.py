"""Stage train: LoRA on a frozen (4-bit or 16-bit) base, packed, resumable, exact."""

"""Which kind of CPU this is: libraries choose their kernels by it, and bits follow the kernels."""

import re
from pathlib import Path

import torch

FIELDS = ("vendor_id", "cpu family", "model")


def cpu_kind() -> str:
    """Vendor, family and model as Linux numbers them, and the instructions that torch uses."""
    path = Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    fields = (re.search(rf"^{name}\s*: (.+)$", text, re.MULTILINE) for name in FIELDS)
    numbers = [found[1].strip() if found else "unknown" for found in fields]
    return " ".join([*numbers, torch.backends.cpu.get_cpu_capability()])

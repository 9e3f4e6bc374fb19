"""The tiny run computes what it did when its values were committed, to the bit.

A change that is meant to change results writes the values anew, with its reason in the commit:
`python tools/same_bits.py --write`. tools/same_bits.py also compares any two commits, on any
machine.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from cpu_kind import cpu_kind
from workshop import Workshop, artifact

COMMITTED = json.loads(Path(__file__).with_name("same_bits.json").read_text(encoding="utf-8"))
HERE = (torch.__version__, cpu_kind())
THERE = (COMMITTED["torch"], COMMITTED["cpu"])


@pytest.mark.skipif(
    HERE != THERE,
    reason=f"values were committed with torch {' and '.join(THERE)}, here is {' and '.join(HERE)}",
)
def test_six_steps_are_the_same_to_the_bit(shop: Workshop, tmp_path: Path) -> None:
    # More threads add up in another order.
    ended = shop.run("--run", "bits", "--until", "train", OMP_NUM_THREADS="1")
    assert ended.code == 0, ended.err
    folder = artifact(shop.store, "bits", "train", tmp_path)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "validation_loss"):
        assert [row[name] for row in rows if name in row] == COMMITTED[name], name
    adapter = (folder / "adapter_model.safetensors").read_bytes()
    assert hashlib.sha256(adapter).hexdigest() == COMMITTED["adapter_sha256"]

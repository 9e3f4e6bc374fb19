"""Two GPUs with NCCL train like one, on the fused path, whole or divided."""

from pathlib import Path
from typing import Any

import pytest
import torch
from dense import write_shape
from ranks import train

SETTINGS: dict[str, Any] = {
    "base": "nf4",
    "dtype": "bfloat16",
    "fused": True,
    "max_steps": 8,
    "epochs": 9,
    "lr": 5e-4,
}
LAYERS = 5
EXECUTIONS = [
    {"zero_stage": 0},
    {"zero_stage": 1},
    {"zero_stage": 2},
    {"zero_stage": 3},
    {"zero_stage": 3, "recompute_layers": 2, "recompute_mlps": 1},
]

pytestmark = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU")


@pytest.mark.parametrize(
    "more", [{}, {"fp8": True}, {"batch_size": 1}], ids=["half", "fp8", "one rank idle"]
)
def test_two_gpus_train_like_one(more: dict[str, Any], tmp_path: Path) -> None:
    model = write_shape(tmp_path / "model", "qwen2", num_hidden_layers=LAYERS)
    settings = {**SETTINGS, **more}
    alone = train(1, model, tmp_path / "alone", [{}], **settings)[0]
    several = train(2, model, tmp_path / "two", EXECUTIONS, **settings)
    # Half precision: other rows in other peers round differently.
    for outcome in several:
        assert outcome.losses == pytest.approx(alone.losses, rel=5e-3)
    whole, divided = several[1], several[3]
    assert divided.losses == pytest.approx(whole.losses, rel=1e-4)

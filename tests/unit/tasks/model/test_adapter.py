"""An adapter is saved, and another training starts from the same weights."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.schema.errors import InputMissing
from thinktune.schema.recipe import TrainSpec
from thinktune.tasks.model.adapter import add_adapter, load_adapter, save_adapter, trainable

WEIGHTS = "adapter_model.safetensors"


def adapter(tiny_folder: Path, **train: object) -> torch.nn.Module:
    base = AutoModelForCausalLM.from_pretrained(tiny_folder)
    return add_adapter(base, TrainSpec(batch_size=1, **train), tiny_entry())  # type: ignore[arg-type]


@pytest.fixture
def saved(tiny_folder: Path, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file, and the weights that were saved in it."""
    model = adapter(tiny_folder, seed=1)
    with torch.no_grad():
        for parameter in trainable(model).values():
            parameter.copy_(torch.randn(parameter.shape))
    save_adapter(model, tmp_path)
    return tmp_path / WEIGHTS, {n: p.detach() for n, p in trainable(model).items()}


def test_what_is_saved_is_loaded_to_the_bit(
    tiny_folder: Path, saved: tuple[Path, dict[str, torch.Tensor]]
) -> None:
    file, expected = saved
    model = adapter(tiny_folder, seed=2)
    load_adapter(model, file)
    found = trainable(model)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("train", [{"rank": 8}, {"targets": ("q_proj",)}])
def test_other_shapes_and_layers_are_refused(
    tiny_folder: Path, saved: tuple[Path, dict[str, torch.Tensor]], train: dict[str, object]
) -> None:
    model = adapter(tiny_folder, **train)
    with pytest.raises(InputMissing, match="not of the layers and shapes") as raised:
        load_adapter(model, saved[0])
    assert raised.value.exit_code == 66

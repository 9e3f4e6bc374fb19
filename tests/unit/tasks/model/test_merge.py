"""An adapter merged into its base answers as the two beside each other."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny import tiny_entry
from transformers import AutoModelForCausalLM

from thinktune.schema.errors import DataInvalid
from thinktune.tasks.model.base import Base, load_base
from thinktune.tasks.model.merge import merge

CPU = torch.device("cpu")
IDS = torch.arange(40, 72)[None]


def random_adapter(weights: Path, folder: Path, *, rslora: bool = False) -> Path:
    torch.manual_seed(1)
    config = LoraConfig(
        r=4,
        lora_alpha=32,
        use_rslora=rslora,
        target_modules=list(tiny_entry().lora_targets)[:3],
        init_lora_weights=False,
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(weights), config)
    model.save_pretrained(folder, save_embedding_layers=False)
    return folder


def merged(weights: Path, adapter: Path, output: Path, base: Base) -> Path:
    beats: list[None] = []
    merge(
        weights,
        adapter,
        output,
        base=base,
        dtype=torch.float32,
        device=CPU,
        beat=lambda: beats.append(None),
    )
    assert len(beats) == len(load_file(output / "model.safetensors"))
    return output


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("base", ["nf4", "16bit"])
def test_it_computes_what_base_and_adapter_compute(
    base: Base, rslora: bool, tiny_folder: Path, tmp_path: Path
) -> None:
    adapter = random_adapter(tiny_folder, tmp_path / "adapter", rslora=rslora)
    folder = merged(tiny_folder, adapter, tmp_path / "merged", base)
    apart = PeftModel.from_pretrained(
        load_base(tiny_folder, base, torch.float32, CPU, attention="sdpa"), str(adapter)
    )
    expected = logits(apart)
    found = logits(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32))
    assert torch.allclose(found, expected, atol=2e-4), (found - expected).abs().max()
    other = load_base(tiny_folder, base, torch.float32, CPU, attention="sdpa")
    assert (logits(other) - expected).abs().max() > 0.1  # the adapter does something


def test_an_nf4_base_is_not_the_16_bit_one(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_folder, tmp_path / "adapter")
    of_nf4 = merged(tiny_folder, adapter, tmp_path / "nf4", "nf4")
    of_16 = merged(tiny_folder, adapter, tmp_path / "16bit", "16bit")
    a, b = (load_file(folder / "model.safetensors") for folder in (of_nf4, of_16))
    untouched = "model.layers.0.mlp.down_proj.weight"  # the adapter has no part in it
    assert not torch.equal(a[untouched], b[untouched])
    assert torch.equal(b[untouched], load_file(tiny_folder / "model.safetensors")[untouched])
    embedding = "model.embed_tokens.weight"
    assert torch.equal(a[embedding], b[embedding])


def test_the_release_s_other_files_come_along(tiny_folder: Path, tmp_path: Path) -> None:
    folder = merged(tiny_folder, random_adapter(tiny_folder, tmp_path / "a"), tmp_path / "m", "nf4")
    assert {file.name for file in folder.iterdir()} == {f.name for f in tiny_folder.iterdir()}


def test_an_adapter_of_another_model(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_folder, tmp_path / "adapter")
    file = adapter / "adapter_model.safetensors"
    kept = load_file(file)
    more = {name.replace("layers.0", "layers.9"): w.clone() for name, w in kept.items()}
    save_file(kept | more, file)
    with pytest.raises(DataInvalid, match=r"layers\.9.*does not have"):
        merged(tiny_folder, adapter, tmp_path / "one", "16bit")
    wide = {n: torch.zeros(4, 7) if "lora_A" in n else w for n, w in kept.items()}
    save_file(wide, file)
    with pytest.raises(DataInvalid, match=r"× 7, and the base's"):
        merged(tiny_folder, adapter, tmp_path / "two", "16bit")


def test_an_adapter_of_another_form_and_a_damaged_one(tiny_folder: Path, tmp_path: Path) -> None:
    adapter = random_adapter(tiny_folder, tmp_path / "adapter")
    strange = shutil.copytree(adapter, tmp_path / "strange")
    config = json.loads((strange / "adapter_config.json").read_text()) | {"use_dora": True}
    (strange / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(DataInvalid, match="use_dora"):
        merged(tiny_folder, strange, tmp_path / "one", "16bit")
    (adapter / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataInvalid, match="cannot be read"):
        merged(tiny_folder, adapter, tmp_path / "two", "16bit")

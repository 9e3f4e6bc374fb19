"""A base divided among ranks: the bytes of the whole one, and one layer per slot."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from bitsandbytes.nn import Linear4bit
from dense import write_shape
from transformers import AutoModelForCausalLM, PreTrainedModel

from thinktune.schema.errors import InputMissing
from thinktune.tasks.model.base import Base, load_base
from thinktune.tasks.model.parallel_load import load_in_parallel
from thinktune.tasks.model.sharded import SLOTS, ShardedBase, lay_out

CPU = torch.device("cpu")
LAYERS = 3


@pytest.fixture(autouse=True)
def group() -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def loaded(
    folder: Path, base: Base = "nf4", *, divided: bool = True
) -> tuple[PreTrainedModel, ShardedBase | None]:
    return load_in_parallel(folder, base, torch.float32, CPU, attention="sdpa", divided=divided)


@pytest.mark.parametrize("base", ["nf4", "16bit"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "mistral"])
def test_layers_are_those_of_transformers_own_loading(
    kind: str, base: Base, tmp_path: Path
) -> None:
    folder = write_shape(tmp_path, kind, num_hidden_layers=LAYERS, hidden_size=192)
    plain = load_base(folder, base, torch.float32, CPU, attention="sdpa")
    model, sharded = loaded(folder, base)
    assert sharded is not None
    for number in range(LAYERS):
        sharded.use(number)
        expected = dict(plain.model.layers[number].named_modules())
        for name, module in model.model.layers[number].named_modules():
            other = expected[name]
            for parameter, wanted in zip(
                module.parameters(False), other.parameters(False), strict=True
            ):
                assert torch.equal(parameter, wanted), name
            if isinstance(module, Linear4bit):
                one, two = module.weight.quant_state, other.weight.quant_state
                for part in ("absmax", "offset", "code"):
                    assert torch.equal(getattr(one, part), getattr(two, part)), name
                assert torch.equal(one.state2.absmax, two.state2.absmax)
                assert torch.equal(one.state2.code, two.state2.code)
    ids = torch.arange(40)[None]
    sharded.watch(model.model.layers)
    whole, _ = loaded(folder, base, divided=False)
    assert torch.equal(whole(ids).logits, plain(ids).logits)
    assert torch.equal(model(ids).logits, plain(ids).logits)


def test_it_reads_several_files_and_tied_embeddings(tmp_path: Path) -> None:
    whole = write_shape(tmp_path / "whole", "llama", tie_word_embeddings=True)
    several = tmp_path / "several"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(several, max_shard_size="500KB")
    assert len(list(several.glob("*.safetensors"))) > 1
    one, parts = loaded(several)
    assert parts is not None
    assert one.lm_head.weight is one.model.embed_tokens.weight
    parts.watch(one.model.layers)
    other = load_base(whole, "nf4", torch.float32, CPU, attention="sdpa")
    ids = torch.arange(40)[None]
    assert torch.equal(one(ids).logits, other(ids).logits)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    folder = write_shape(tmp_path, "llama", num_hidden_layers=1)
    config = (folder / "config.json").read_text()
    config = config.replace('"num_hidden_layers": 1', '"num_hidden_layers": 2')
    (folder / "config.json").write_text(config)
    with pytest.raises(InputMissing, match=r"no tensor model\.layers\.1\.") as raised:
        loaded(folder)
    assert raised.value.exit_code == 66


def test_two_layers_at_most_are_whole(tmp_path: Path) -> None:
    folder = write_shape(tmp_path, "llama", num_hidden_layers=6)
    model, sharded = loaded(folder)
    assert sharded is not None
    pointers = {layer.mlp.down_proj.weight.data_ptr() for layer in model.model.layers}
    assert len(pointers) == SLOTS
    assert len(sharded.slots) == SLOTS


def test_byte_ranges_never_overlap() -> None:
    shapes = [((3, 5), torch.uint8), ((), torch.float32), ((7,), torch.bfloat16)]
    ranges = lay_out(shapes)
    whole = torch.zeros(ranges[-1].start + ranges[-1].bytes, dtype=torch.uint8)
    for number, found in enumerate(ranges):
        found.view(whole).fill_(number + 1)
    for number, found in enumerate(ranges):
        assert (found.view(whole) == number + 1).all()
        assert tuple(found.view(whole).shape) == shapes[number][0]

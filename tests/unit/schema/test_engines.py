"""Which engine answers, and what the report says of the choice."""

import pytest

from thinktune.recipes.compose import load_catalog
from thinktune.schema.engines import choose
from thinktune.schema.errors import SpecInvalid
from thinktune.schema.recipe import EngineChoice

MODELS = load_catalog().models
DENSE, MIXTURE = MODELS["r1-distill-qwen-1.5b"], MODELS["deepseek-r1"]


@pytest.mark.parametrize(
    ("wanted", "capability", "installed", "name", "reason"),
    [
        ("auto", (9, 0), True, "vllm", "there is a GPU that it runs on"),
        ("auto", (8, 0), True, "vllm", "there is a GPU that it runs on"),
        ("auto", (7, 5), True, "transformers", "the GPU has compute capability 7.5, below 8.0"),
        ("auto", None, True, "transformers", "there is no GPU"),
        ("auto", (9, 0), False, "transformers", "vLLM is not installed here"),
        ("transformers", (9, 0), True, "transformers", "the recipe names it"),
        ("vllm", None, True, "vllm", "the recipe names it"),
    ],
)
def test_the_choice(
    wanted: EngineChoice,
    capability: tuple[int, int] | None,
    installed: bool,
    name: str,
    reason: str,
) -> None:
    chosen = choose(wanted, DENSE, capability, vllm_installed=installed)
    assert (chosen.name, chosen.reason) == (name, reason)


def test_a_mixture_of_experts_has_its_adapter_on_experts() -> None:
    chosen = choose("auto", MIXTURE, (9, 0), vllm_installed=True)
    assert chosen.name == "transformers"


def test_an_engine_that_is_not_there() -> None:
    with pytest.raises(SpecInvalid, match="vLLM is not installed here; take the image evaluate"):
        choose("vllm", DENSE, (9, 0), vllm_installed=False)

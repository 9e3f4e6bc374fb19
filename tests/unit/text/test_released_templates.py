"""Our text against the released chat templates': golden texts, and SmolLM2's own template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import gguf
import pytest
from golden.render import Turns, golden, sha256, texts

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.conversations import BETWEEN_SYSTEMS
from thinktune.tasks.prep.gguf_weights import packaged_file
from thinktune.text.conversation import Exchange, Turn
from thinktune.text.templates import LAYOUTS, Renderer
from thinktune.text.think import split_think

MODELS = load_catalog().models
CONVERSATIONS: dict[str, Turns] = golden("conversations")
TEMPLATES = golden("templates")
SMOLLM2 = "smollm2"
ORACLES = (*TEMPLATES, SMOLLM2)
DATA = DataSpec(dataset="file", path="x.jsonl")

R1 = ("deepseek_r1_distill", "deepseek_r1")
CHATML = ("qwen2_5", "qwen3", SMOLLM2)
LLAMA_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
LLAMA_SYSTEM = "<|start_header_id|>system<|end_header_id|>\n\n"
REASONED = ("reasoning", "reasoning-throughout")
"""Conversations whose answer has a think part."""
REASONED_BEFORE = ("reasoning-before", "reasoning-throughout")
"""Conversations in which an earlier turn has one."""
NOT_REASONED = tuple(name for name in CONVERSATIONS if name not in REASONED)
WITH_SYSTEM = tuple(name for name, turns in CONVERSATIONS.items() if turns[0]["role"] == "system")
WITHOUT_SYSTEM = tuple(name for name in CONVERSATIONS if name not in WITH_SYSTEM)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What stands in our text, in one place, instead of what the released template writes."""

    why: str
    templates: Sequence[str]
    conversations: Sequence[str] = tuple(CONVERSATIONS)
    kinds: Sequence[str] = ("prompt", "full")
    released: str
    ours: str
    last: bool = False
    """Whether the last of several places is meant, instead of the first."""

    def applied(self, text: str) -> str:
        """The released text with ours in its place."""
        at = text.rfind(self.released) if self.last else text.find(self.released)
        assert at >= 0, f"the released text has no {self.released!r}: {self.why}"
        return text[:at] + self.ours + text[at + len(self.released) :]


DROPPED = "the template keeps only what follows </think>; our text is what the model learns"
EMPTY = "our prompt ends in <think>, and an answer without reasoning closes that part at once"
BEFORE = "in our text, earlier turns have no reasoning, as R1 is to be asked"
STOPPED = "generation has stopped at the end-of-sequence token: what follows is not learned"
SYSTEMS = "a query has one system prompt, which prep joins of several, an empty line between them"
DATES = "the template writes dates into the system turn, which would stand still in training"
HYBRID = "the template shows that Qwen3 was told not to think; our answer is as the row has it"

DIFFERENCES = (
    Difference(
        why=DROPPED,
        templates=R1,
        conversations=("reasoning",),
        kinds=("full",),
        released="<｜Assistant｜>\n\nIt is 4.",
        ours="<｜Assistant｜><think>\nTwo and two.\n\nThat makes 4.\n</think>\n\nIt is 4.",
    ),
    Difference(
        why=DROPPED,
        templates=R1,
        conversations=("reasoning-throughout",),
        kinds=("full",),
        released="<｜Assistant｜>\n\nIt is 6.",
        ours="<｜Assistant｜><think>\n3 + 3\n= 6\n</think>\n\nIt is 6.",
    ),
    Difference(
        why=EMPTY,
        templates=R1,
        conversations=NOT_REASONED,
        kinds=("full",),
        released="<｜Assistant｜>",
        ours="<｜Assistant｜><think>\n\n</think>\n\n",
        last=True,
    ),
    Difference(
        why=BEFORE + "; R1's template leaves the blank lines behind it",
        templates=R1,
        conversations=REASONED_BEFORE,
        released="<｜Assistant｜>\n\nIt is 4.",
        ours="<｜Assistant｜>It is 4.",
    ),
    Difference(
        why=BEFORE + "; the template knows no reasoning",
        templates=[name for name in ORACLES if name not in (*R1, "qwen3")],
        conversations=REASONED_BEFORE,
        released="<think>\nTwo and two make 4.\n</think>\n\nIt is 4.",
        ours="It is 4.",
    ),
    Difference(
        why=STOPPED,
        templates=CHATML,
        kinds=("full",),
        released="<|im_end|>\n",
        ours="<|im_end|>",
        last=True,
    ),
    Difference(
        why=STOPPED,
        templates=("deepseek_coder",),
        kinds=("full",),
        released="<|EOT|>\n",
        ours="<|EOT|>",
        last=True,
    ),
    Difference(
        why=SYSTEMS + "; the template keeps the last",
        templates=("deepseek_r1_distill",),
        conversations=("two-systems",),
        released="Answer in English.",
        ours="Be brief.\n\nAnswer in English.",
    ),
    Difference(
        why=SYSTEMS + "; the template has nothing between them",
        templates=("deepseek_coder",),
        conversations=("two-systems",),
        released="Be brief.Answer in English.",
        ours="Be brief.\n\nAnswer in English.",
    ),
    Difference(
        why=SYSTEMS + "; the template makes a turn of each",
        templates=CHATML,
        conversations=("two-systems",),
        released="Be brief.<|im_end|>\n<|im_start|>system\nAnswer in English.",
        ours="Be brief.\n\nAnswer in English.",
    ),
    Difference(
        why=SYSTEMS + "; the template makes a turn of each",
        templates=("llama3", "llama3_1"),
        conversations=("two-systems",),
        released=f"Be brief.<|eot_id|>{LLAMA_SYSTEM}Answer in English.",
        ours="Be brief.\n\nAnswer in English.",
    ),
    Difference(
        why=DATES,
        templates=("llama3_1",),
        conversations=WITH_SYSTEM,
        released=LLAMA_DATES,
        ours="",
    ),
    Difference(
        why=DATES,
        templates=("llama3_1",),
        conversations=WITHOUT_SYSTEM,
        released=f"{LLAMA_SYSTEM}{LLAMA_DATES}<|eot_id|>",
        ours="",
    ),
    Difference(
        why=HYBRID,
        templates=("qwen3",),
        conversations=NOT_REASONED,
        kinds=("full",),
        released="<think>\n\n</think>\n\n",
        ours="",
        last=True,
    ),
)
"""All that our text may differ in. Everything else is equal, character by character."""


def entries(oracle: str) -> list[ModelEntry]:
    """The models that were released with a template, or one that stands for them."""
    if oracle == SMOLLM2:
        return [MODELS["smollm2-135m"]]
    source = TEMPLATES[oracle]
    if source["models"]:
        return [MODELS[name] for name in source["models"]]
    facts = {name: source.get(name) for name in ("chat_template", "default_system")}
    other = {"repo": source["released_with"], "thinks": False, "packaged": None}
    return [MODELS["smollm2-135m"].model_copy(update={**facts, **other})]


@cache
def smollm2_template() -> str:
    """What the package's file says. The package's module is located, never imported."""
    packaged = MODELS["smollm2-135m"].packaged
    assert packaged is not None
    fields = gguf.GGUFReader(packaged_file(packaged)).fields
    return str(fields["tokenizer.chat_template"].contents())


def released(oracle: str, conversation: str) -> Mapping[str, str]:
    """Both texts of a conversation as the released template has them."""
    if oracle == SMOLLM2:
        turns = CONVERSATIONS[conversation]
        return texts(smollm2_template(), turns, bos="<|im_start|>", eos="<|im_end|>")
    found: dict[str, str] = golden("texts")["texts"][oracle][conversation]
    return found


def exchange(turns: Turns) -> Exchange:
    """The conversation in the shape that is rendered, all text as it stands."""
    said = [turn for turn in turns if turn["role"] != "system"]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    before = (Turn(turn["role"], without_reasoning(turn["content"])) for turn in said[:-2])
    answer = said[-1]["content"]
    return Exchange(
        question=said[-2]["content"],
        system=BETWEEN_SYSTEMS.join(systems) or None,
        before=tuple(before),
        answer=without_reasoning(answer),
        reasoning=split_think(answer)[0],
    )


def without_reasoning(text: str) -> str:
    reasoning, answer = split_think(text)
    return text if reasoning is None else answer


@pytest.mark.parametrize("conversation", CONVERSATIONS)
@pytest.mark.parametrize("oracle", ORACLES)
def test_text_equals_the_released_template_s(oracle: str, conversation: str) -> None:
    expected = dict(released(oracle, conversation))
    for difference in DIFFERENCES:
        if oracle in difference.templates and conversation in difference.conversations:
            for kind in difference.kinds:
                expected[kind] = difference.applied(expected[kind])
    for entry in entries(oracle):
        renderer = Renderer(entry, DATA, conversations=True)
        rendered = renderer.render(exchange(CONVERSATIONS[conversation]))
        prompt = rendered.prompt_text()
        assert prompt == expected["prompt"], entry.repo
        whole = prompt + rendered.reasoning + rendered.answer + rendered.end
        assert whole == expected["full"], entry.repo


def test_every_model_of_the_catalog_and_every_layout_is_compared() -> None:
    compared = [entry for oracle in ORACLES for entry in entries(oracle)]
    repos = [entry.repo for entry in compared]
    assert all(repos.count(entry.repo) == 1 for entry in MODELS.values())
    assert {entry.chat_template for entry in compared} == set(LAYOUTS)
    for name, source in TEMPLATES.items():
        assert {entry.chat_template for entry in entries(name)} == {source["chat_template"]}


def test_the_golden_texts_are_of_these_conversations_and_templates() -> None:
    document = golden("texts")
    assert document["conversations_sha256"] == sha256("conversations"), "run golden/render.py"
    assert document["templates_sha256"] == sha256("templates"), "run golden/render.py"
    for rendered in document["texts"].values():
        assert list(rendered) == list(CONVERSATIONS)
    assert list(document["texts"]) == list(TEMPLATES)


def test_a_recipe_s_system_prompt_stands_before_the_released_one() -> None:
    entry = MODELS["smollm2-135m"]
    data = DATA.model_copy(update={"system": "Be brief."})
    turns = exchange(CONVERSATIONS["one-turn"])
    said = Renderer(entry, data, conversations=True).render(turns).prompt_text()
    assert said == released(SMOLLM2, "one-turn-with-system")["prompt"]
    assert Renderer(entry, data).digest() != Renderer(entry, DATA).digest()


def test_white_space_of_the_template_is_part_of_the_first_word_s_token() -> None:
    renderer = Renderer(MODELS["deepseek-coder-v2"], DATA, conversations=True)
    rendered = renderer.render(exchange(CONVERSATIONS["three-turns"]))
    letters = [piece.text for piece in rendered.prompt if not piece.control]
    assert letters == [" Hello", " Hi there!", " What is 2 + 2?", " It is 4.", " And 3 + 3?"]
    assert (rendered.prompt[-1].text, rendered.answer) == ("Assistant:", " It is 6.")

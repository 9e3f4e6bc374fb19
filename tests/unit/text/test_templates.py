"""Text as the models see it."""

import pytest
from tiny_tokenizer import tiny_entry

from thinktune.recipes.compose import load_catalog
from thinktune.schema.catalog import ModelEntry
from thinktune.schema.data import DataSpec
from thinktune.schema.errors import SpecInvalid
from thinktune.text.conversation import Exchange, Query, Turn, Unusable
from thinktune.text.templates import Renderer, turns_of

MODELS = load_catalog().models
DATA = DataSpec(
    dataset="inventory-sums",
    prompt="Task: reason.\n\n{question}",
    answer="{answer}\n\nFinal Answer: {summary}",
    final_answer="Final Answer:",
)


def row(reasoning: str | None = "2 + 2 = 4", question: str = "2 + 2?") -> Exchange:
    return Exchange(question=question, reasoning=reasoning, answer="It is 4.", summary="4")


def text(model: ModelEntry, example: Exchange, data: DataSpec = DATA) -> str:
    rendered = Renderer(model, data).render(example)
    return rendered.prompt_text() + "|" + rendered.reasoning + rendered.answer + rendered.end


def test_r1_opens_the_think_part_in_the_prompt() -> None:
    assert text(MODELS["r1-distill-qwen-1.5b"], row()) == (
        "<｜begin▁of▁sentence｜><｜User｜>Task: reason.\n\n2 + 2?<｜Assistant｜><think>\n|"
        "2 + 2 = 4\n</think>\n\nIt is 4.\n\nFinal Answer: 4<｜end▁of▁sentence｜>"
    )


def test_a_model_that_does_not_think_learns_to_open_it() -> None:
    assert text(MODELS["smollm2-135m"], row()) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nTask: reason.\n\n2 + 2?<|im_end|>\n<|im_start|>assistant\n|"
        "<think>\n2 + 2 = 4\n</think>\n\nIt is 4.\n\nFinal Answer: 4<|im_end|>"
    )


def test_without_reasoning_r1_gets_the_empty_think_part() -> None:
    assert "<think>\n|\n</think>\n\nIt is 4." in text(MODELS["deepseek-r1"], row(None))
    assert "|It is 4." in text(MODELS["smollm2-135m"], row(None))


def test_every_model_of_the_catalog_has_a_template() -> None:
    for model in MODELS.values():
        assert "2 + 2 = 4\n</think>" in text(model, row())


def test_a_missing_field_drops_the_row() -> None:
    example = Exchange(question="q", answer="a")
    with pytest.raises(Unusable, match="no summary") as raised:
        Renderer(tiny_entry(), DATA).render(example)
    assert "data.columns.summary" in raised.value.reason.remedy


def test_conversations_are_taken_as_they_stand() -> None:
    example = Exchange(
        question="q {summary} {question}", reasoning="r", answer="a\nFinal Answer: 7"
    )
    rendered = Renderer(tiny_entry(), DATA, conversations=True).render(example)
    assert "user\nq {summary} {question}<|im_end|>" in rendered.prompt_text()
    assert rendered.answer == "a\nFinal Answer: 7"
    assert rendered.reference == "7"


def test_braces_in_a_question_stay() -> None:
    assert "solve {answer} \\boxed{}" in text(
        tiny_entry(), row(question="solve {answer} \\boxed{}")
    )


def test_the_prompt_must_hold_the_question() -> None:
    with pytest.raises(SpecInvalid, match=r"does not contain \{question\}"):
        Renderer(tiny_entry(), DATA.model_copy(update={"prompt": "hello"}))


def test_the_digest_follows_the_text() -> None:
    one = Renderer(tiny_entry(), DATA).digest()
    assert one == Renderer(tiny_entry(), DATA).digest()
    other = DATA.model_copy(update={"prompt": "{question}"})
    assert one != Renderer(tiny_entry(), other).digest()


def test_a_query_without_an_answer_has_the_prompt_of_the_whole_exchange() -> None:
    # Serving has a question alone; its prompt must be the one of training, piece by piece.
    exchange = row()
    renderer = Renderer(MODELS["r1-distill-qwen-1.5b"], DATA)
    assert renderer.prompt(Query(question=exchange.question)) == renderer.render(exchange).prompt
    query = Query(question="3?", system="s", before=(Turn("user", "1?"), Turn("assistant", "2.")))
    said = "".join(piece.text for piece in Renderer(tiny_entry(), DATA).prompt(query))
    assert said.index("s<|im_end|>") < said.index("1?") < said.index("2.") < said.index("3?")


@pytest.mark.parametrize(
    ("name", "pattern", "meant"),
    [
        ("answer", "{answer} {sumary}", "{summary}"),
        ("answer", "{answer} { summary }", "{summary}"),
        ("prompt", "{question} {option}", "{options}"),
    ],
)
def test_a_slip_in_a_pattern(name: str, pattern: str, meant: str) -> None:
    with pytest.raises(SpecInvalid, match="is no field") as raised:
        Renderer(tiny_entry(), DATA.model_copy(update={name: pattern}))
    assert raised.value.remedy == f"write {meant}"
    Renderer(tiny_entry(), DATA.model_copy(update={"prompt": "\\frac{a}{b} {question}"}))


@pytest.mark.parametrize("name", MODELS)
def test_turns_are_found_again_in_the_prompt_of_every_model(name: str) -> None:
    before = (Turn(role="user", text="Hello."), Turn(role="assistant", text="What is it?"))
    query = Query(question="2 + 2?", before=before, system="Be brief.")
    data = DataSpec(dataset="inventory-sums")
    assert turns_of(MODELS[name], Renderer(MODELS[name], data).prompt(query)) == [
        ("system", "Be brief."),
        ("user", "Hello."),
        ("assistant", "What is it?"),
        ("user", "2 + 2?"),
    ]

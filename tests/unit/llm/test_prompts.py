"""Templates: columns in braces, and nothing else."""

from typing import Any

import pytest

from thinktune.llm.prompts import NotTextError, Template, is_blank
from thinktune.schema.errors import SpecInvalid


def test_columns_in_braces() -> None:
    template = Template("{{a}} {question} and { n }", "prompt")
    assert template.columns == {"question", "n"}
    assert template.render({"question": "{x} Why?", "n": 3}) == "{a} {x} Why? and 3"


@pytest.mark.parametrize("text", ["{", "}", "a {} b", "{ }", "{a{b}}", "a } b"])
def test_a_brace_on_its_own(text: str) -> None:
    with pytest.raises(SpecInvalid, match="on its own"):
        Template(text, "prompt")


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(SpecInvalid, match="no column 'qestion'; did you mean 'question'"):
        Template("{qestion}", "data.generate.prompt").check(["question", "answer"])


def test_a_column_is_a_name_and_never_an_expression() -> None:
    with pytest.raises(SpecInvalid, match=r"no column 'question\.__class__'"):
        Template("{question.__class__}", "prompt").check(["question"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no:a"),
        (float("nan"), "no:a"),
        ("", "no:a"),
        (" \u200b\n", "no:a"),
        (True, "not_text:a"),
        (["x"], "not_text:a"),
        ({"x": 1}, "not_text:a"),
        ("half \ud83d", "not_text:a"),
        (b"x", "not_text:a"),
    ],
)
def test_what_is_no_text(value: Any, reason: str) -> None:
    with pytest.raises(NotTextError, match=f"^{reason}$"):
        Template("{a}", "prompt").render({"a": value})


def test_numbers_are_spelled_as_in_json() -> None:
    assert Template("{a} {b}", "prompt").render({"a": 0.5, "b": 7}) == "0.5 7"


def test_blank() -> None:
    assert is_blank(None) and is_blank("\u200b") and is_blank(float("nan"))
    assert not is_blank(0) and not is_blank("x") and not is_blank([])

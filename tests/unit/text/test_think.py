"""The one parser of think parts, in its strict and its lenient reading."""

import itertools

import pytest

from thinktune.text.conversation import Unusable
from thinktune.text.think import Parsed, split_generated, split_think


@pytest.mark.parametrize(
    ("text", "prompt_opens", "expected"),
    [
        ("<think>\nso\n</think>\n\nFour.", False, Parsed("so", "Four.", True, True)),
        ("so\n</think>\nFour.", True, Parsed("so", "Four.", True, True)),
        ("<think>so</think>Four.", True, Parsed("so", "Four.", True, True)),
        ("so</think>Four.", False, Parsed("so", "Four.", True, True)),
        ("Four.", False, Parsed("", "Four.", True, False)),
        ("", False, Parsed("", "", True, False)),
        ("<think>so and so", False, Parsed("so and so", "", False, True)),
        ("so and so", True, Parsed("so and so", "", False, True)),
        ("<think>\n\n</think>\n\nFour.", False, Parsed("", "Four.", True, True)),
        (
            "<think>a</think>one<think>b</think>two",
            False,
            Parsed("a\nb", "one\ntwo", True, True),
        ),
        ("<think>a</think>one<think>b", False, Parsed("a\nb", "", False, True)),
    ],
)
def test_generated_text_is_taken_apart(text: str, prompt_opens: bool, expected: Parsed) -> None:
    assert split_generated(text, prompt_opens_think=prompt_opens) == expected


def test_think_parts_by_either_tag() -> None:
    assert split_think("<thinking>\nr\n</thinking>\na") == ("r", "a")
    assert split_think("r</thinking>a") == ("r", "a")
    assert split_think("r</think>a") == ("r", "a")
    assert split_think("a, and no more") == (None, "a, and no more")
    for text, reason in {
        "<thinking>r": "unfinished think part",
        "<thinking>r</thinking><think>s</think>a": "more than one think part",
        "well, <thinking>r</thinking>a": "text before the think part",
        "r</think>a</think>b": "more than one think part",
        "r</think>a<think>b": "more than one think part",
        "<think><think>r</think>a": "more than one think part",
    }.items():
        with pytest.raises(Unusable, match=reason):
            split_think(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<thinking>a</thinking>b", Parsed("a", "b", True, True)),
        ("<thinking>a</think>b", Parsed("a", "b", True, True)),
        ("a</thinking>b", Parsed("a", "b", True, True)),
        ("<thinking>a", Parsed("a", "", False, True)),
        ("<thinker>a</thinker>b", Parsed("", "<thinker>a</thinker>b", True, False)),
    ],
)
def test_generated_text_may_use_the_longer_tag(text: str, expected: Parsed) -> None:
    assert split_generated(text, prompt_opens_think=False) == expected


MARKS = ("<think>", "</think>", "<thinking>", "</thinking>", " ", "r\n", "a")


def test_both_readings_agree_where_the_strict_one_accepts() -> None:
    accepted = 0
    for length in range(6):
        for parts in itertools.product(MARKS, repeat=length):
            text = "".join(parts)
            lenient = split_generated(text, prompt_opens_think=False)
            try:
                reasoning, answer = split_think(text)
            except Unusable:
                continue
            accepted += 1
            assert (reasoning or "", answer) == (lenient.thinking, lenient.answer), text
            assert (reasoning is not None, True) == (lenient.opened, lenient.closed), text
            # Where the prompt ends in `<think>`, the rest of the text means the same.
            if text.startswith("<think>"):
                rest = text.removeprefix("<think>")
                assert split_generated(rest, prompt_opens_think=True) == lenient, text
            assert "think" not in f"{reasoning}{answer}", text
    assert accepted > 1000

"""A text that arrives in pieces is taken apart as the whole one is."""

import random
import re

import pytest

from thinktune.text.think import split_generated
from thinktune.text.think_stream import ThinkStream

WORDS = ["<think>", "</think>", "<thinking>", "</thinking>", " ", "\n", "\n\n", "a", "b c"]
HALVES = ["<", "</", "th", "ink>", "think", "<th", " x "]


def streamed(text: str, sizes: random.Random, *, opens: bool) -> tuple[str, str, bool]:
    """Reasoning, content, and whether the think part has ended."""
    stream = ThinkStream(prompt_opens_think=opens)
    deltas, at = [], 0
    while at < len(text):
        size = sizes.randrange(1, 6)
        deltas += stream.feed(text[at : at + size])
        at += size
    deltas += stream.close()
    said = {"reasoning": "", "content": ""}
    for delta in deltas:
        said[delta.kind] += delta.text
    return said["reasoning"], said["content"], not stream.inside


@pytest.mark.parametrize("opens", [True, False])
def test_the_pieces_come_to_what_the_parser_says_of_the_whole(opens: bool) -> None:
    draws = random.Random(3)
    compared = 0
    for _ in range(4000):
        text = "".join(draws.choice(WORDS + HALVES) for _ in range(draws.randrange(12)))
        first = re.search(r"</?think(ing)?>", text)
        if first and first[0].startswith("</") and not opens:
            continue  # the one text of which nobody can know in time
        expected = split_generated(text, prompt_opens_think=opens)
        reasoning, content, closed = streamed(text, draws, opens=opens)
        assert (reasoning, closed) == (expected.thinking, expected.closed), text
        if closed:
            assert content == expected.answer, text
        else:  # the parser gives no answer, and what stood before has been given out
            assert content == split_generated(f"{text}</think>", prompt_opens_think=opens).answer
        compared += 1
    assert compared > 2000


def test_an_answer_before_a_think_part_that_never_ends_has_been_given_out() -> None:
    text = "4\n<think>\nor five"
    assert streamed(text, random.Random(0), opens=False) == ("or five", "4", False)
    assert split_generated(text, prompt_opens_think=False).answer == ""


def test_text_is_given_out_as_soon_as_it_can_be_no_mark() -> None:
    stream = ThinkStream(prompt_opens_think=True)
    assert [delta.text for delta in stream.feed("one <")] == ["one"]
    assert stream.feed("/thi") == []
    assert [delta.text for delta in stream.feed("s")] == [" </this"]
    assert stream.feed("</think>\n\n") == []
    assert [(delta.kind, delta.text) for delta in stream.feed("Four")] == [("content", "Four")]


def test_a_stray_mark_is_no_part_of_the_answer() -> None:
    assert streamed("so</think>Four</think>.", random.Random(0), opens=True) == (
        "so",
        "Four\n.",
        True,
    )

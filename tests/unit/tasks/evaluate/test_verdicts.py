from functools import partial

import answers
from answers import judged

from thinktune.text.labels import LabelList

sample = partial(answers.sample, reference="42")


def test_judging_does_not_ask_for_the_line_but_for_the_answer() -> None:
    without = judged(sample("That makes 42."), "Final Answer:", "number")
    assert (without.has_final_line, without.correct, without.extracted) == (False, True, "42")
    inside = judged(sample("Final Answer: 42", opens=True), "Final Answer:", "number")
    assert (inside.has_final_line, inside.correct, inside.extracted) == (False, False, None)
    unmarked = judged(sample("Final Answer: 42"), None, "number")
    assert (unmarked.has_final_line, unmarked.correct) == (None, True)
    assert judged(sample("42", reference=None), "Final Answer:", "number").correct is None
    assert judged(sample("42", reference="many"), "Final Answer:", "number").correct is None


def test_the_think_part_is_counted_and_read_by_either_tag() -> None:
    thought = judged(sample("<thinking>so</thinking>42"), None, "number")
    assert (thought.parsed.thinking, thought.thinking_tokens, thought.correct) == ("so", 2, True)
    assert judged(sample("<think></think>42"), None, "number").thinking_tokens == 0


def test_several_options_are_invalid_and_counted_apart() -> None:
    several = judged(sample("Answer: A or B", reference="A"), None, "choice")
    assert (several.correct, several.several, several.extracted) == (False, True, None)


def test_labels_need_a_reference_that_names_some() -> None:
    labels = LabelList("Violations:", ["a", "b"], "none", {})
    said = sample("<think>Violations: b</think>Violations: a")
    found = judged(said, labels=labels, answer="Violations: a; b").labels
    assert found is not None
    assert (found.expected, found.said.named) == ({"a", "b"}, {"a"})
    assert judged(said, labels=labels, answer="nothing of that kind").labels is None
    assert judged(said, labels=labels, answer="Violations: c").labels is None

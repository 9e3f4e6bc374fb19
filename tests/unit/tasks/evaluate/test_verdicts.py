from functools import partial

import answers

from thinktune.tasks.evaluate.verdicts import judge

sample = partial(answers.sample, reference="42")


def test_judge_does_not_ask_for_the_line_but_for_the_answer() -> None:
    without = judge(sample("That makes 42."), "Final Answer:", "number", len)
    assert (without.has_final_line, without.correct) == (False, True)
    inside = judge(sample("Final Answer: 42", opens=True), "Final Answer:", "number", len)
    assert (inside.has_final_line, inside.correct) == (False, False)
    unmarked = judge(sample("Final Answer: 42"), None, "number", len)
    assert (unmarked.has_final_line, unmarked.correct) == (None, True)
    assert judge(sample("42", reference=None), "Final Answer:", "number", len).correct is None
    assert judge(sample("42", reference="many"), "Final Answer:", "number", len).correct is None


def test_the_think_part_is_counted_and_read_by_either_tag() -> None:
    thought = judge(sample("<thinking>so</thinking>42"), None, "number", len)
    assert (thought.parsed.thinking, thought.thinking_tokens, thought.correct) == ("so", 2, True)
    assert judge(sample("<think></think>42"), None, "number", len).thinking_tokens == 0

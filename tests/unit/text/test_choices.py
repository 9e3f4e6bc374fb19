"""Letters of options, after bugs of other judges: a letter inside a sentence chooses nothing."""

import pytest

from thinktune.text.choices import choice, option_letters

SEVERAL = "several"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B).", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B because a car moves", "B"),
        ("A because it is one", "A"),
        ("answer is B. Note that A is a distractor", "B"),
        ("The answer is B. Option A is a distractor, and so is option C.", "B"),
        ("Answer seems to be A", "A"),
        ("The answer must be (C).", "C"),
        ("Therefore, the answer is most likely C.", "C"),
        (r"I found \boxed{H} first. Answer: D", "D"),
        (r"Answer: $\boxed{C}$", "C"),
        (r"So it is \boxed{\text{C}}, not A.", "C"),
        ("Answer: A\nOn reflection:\nAnswer: B", "B"),
        ("The correct option is D: aspirin", "D"),
        ("Option A is wrong, option C too.\nSo (B).", "B"),
        ("The answer is not A. It is (C)", "C"),
        ("The answer: I think it is (B)", "B"),
        ("The correct answer is C. Answer choice B is incorrect because …", "C"),
        ("The answer is C. Note that answer A describes gout.", "C"),
        ("Answer: C\nWhy not answer B?", "C"),
        ("Answer: A patient with fever needs it (C)", "C"),
        ("The answer is C-reactive protein, option D", "D"),
        ('Answer: "B"', "B"),
        ("Answer: [B]", "B"),
        ("C is correct", "C"),
        ("Answer: $A$ or $B$", SEVERAL),
        ("A; C", SEVERAL),
        ("A as well as C", SEVERAL),
        ("A or option B", SEVERAL),
        (r"\boxed{A} or \boxed{B}", SEVERAL),
        ("A or B or C", SEVERAL),
        ("Answer: A and B", SEVERAL),
        ("Answer: A/B", SEVERAL),
        ("A, B", SEVERAL),
        ("(A) or (B)", SEVERAL),
        ("A car moves because of its engine", None),
        ("A patient has fever", None),
        ("the answer is a bit unclear", None),
        ("Both A and B would do", None),
        ("I", None),
        ("F", None),
        ("Answer: F", None),
        ("The vitamin is B12", None),
        ("", None),
    ],
)
def test_what_is_chosen_of_five_options(text: str, chosen: str | None) -> None:
    found = choice(text, "ABCDE")
    assert found.letter == (None if chosen == SEVERAL else chosen)
    assert found.several == (chosen == SEVERAL)


def test_options_are_those_that_references_show() -> None:
    assert option_letters(["A", "(B)", None]) == "ABCD"
    assert option_letters(["A", "E"]) == "ABCDE"
    assert option_letters([]) == "ABCD"
    assert option_letters(["E) Nitrofurantoin", "B) Aspirin"]) == "ABCDE"

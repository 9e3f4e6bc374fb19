import pytest

from thinktune.text.final_answer import final_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is so.\nFinal Answer: 42", "42"),
        ("Final Answer: 41\nNo:\nFinal Answer: 42\nBye", "42"),
        ("  **Final Answer:** 42", "42"),
        ("**Final Answer: 42**", "42"),
        ("**Final Answer**: 42", "42"),
        ("### Final Answer: -5", "-5"),
        ("final answer: 42", None),
        ("The Final Answer: 42", None),
        ("Final Answer:\n42", None),
        ("Final Answer: **", None),
        ("Final Answer 42", None),
        ("", None),
    ],
)
def test_final_answer(text: str, expected: str | None) -> None:
    assert final_answer(text, "Final Answer:") == expected

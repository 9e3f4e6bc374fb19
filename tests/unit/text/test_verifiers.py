import pytest

from thinktune.schema.report import Verifier
from thinktune.text.verifiers import check, checkable, choose_verifier

NUMBERS = [
    ("42", "42", True),
    ("-42", "42", False),
    ("\N{MINUS SIGN}42", "-42", True),
    ("10-5", "5", True),
    ("1,234,567", "1234567", True),
    ("1{,}234", "1,234", True),
    ("$1,200.50", "1200.5", True),
    ("-$5", "-5", True),
    ("12 apples.", "12", True),
    ("5 m^2", "5", True),
    ("5kg", "5", True),
    ("First 3, then 4, so 7", "7", True),
    ("First 3, then 4, so 7", "3", False),
    ("It costs $12.50 (for 3 boxes).", "12.5", True),
    ("1/2", "0.5", True),
    (r"\frac{3}{4}", "0.75", True),
    ("1 1/2", "1.5", True),
    ("0.33", "1/3", True),
    ("3.14159", "3.14", True),
    ("3.1", "3.14", False),
    ("41.9", "42", False),
    ("50%", "0.5", True),
    ("0.5", "50 %", True),
    ("1.5 × 10^3", "1500", True),
    (r"10^{3}", "1000", True),
    ("2e3", "2000", True),
    (r"so \boxed{12}, which 3 people share", "12", True),
    ("none at all", "4", False),
    ("3/0", "3", False),
    ("9" * 6000, "9", False),
    ("0.30000000000000004", "0.3", True),
    ("1,2,3", "3", True),
    ("It is 5 or 6.", "6", False),
    ("5 or 6 apples", "5", False),
    ("5 or more, so 7", "7", True),
    ("**5** or **6**", "6", False),
    (r"\boxed{5} or \boxed{6}", "6", False),
    ("either 5 or 6 of them", "6", False),
    (r"$\frac{1}{2}$ or 0.5", "0.5", True),
    (r"2\frac{3}{4}", "2.75", True),
    (r"\frac12", "0.5", True),
    ("7 000", "5 000", False),
    ("5 000", "5000", True),
    ("3,00,000", "1,00,000", False),
]


@pytest.mark.parametrize(("candidate", "reference", "expected"), NUMBERS)
def test_numbers(candidate: str, reference: str, expected: bool) -> None:
    assert check(candidate, reference, "number") is expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("B", True),
        ("b", True),
        ("(B)", True),
        ("B.", True),
        ("**B**", True),
        ("B) Aspirin", True),
        ("The answer is B", True),
        ("The correct answer is: **B. Aspirin**", True),
        ("**Answer:** (B)", True),
        (r"\boxed{\text{B}}", True),
        ("Option A is wrong, option C too.\nSo (B).", True),
        ("The answer is A because …", False),
        ("the answer is a bit unclear", False),
        ("Both A and B would do", False),
        ("The answer: I think it is (B)", True),
        ("Aspirin", False),
    ],
)
def test_choices(candidate: str, expected: bool) -> None:
    assert check(candidate, "B", "choice") is expected


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        ("acute appendicitis", True),
        ("The diagnosis is acute appendicitis.", True),
        ("An Acute-Appendicitis!", True),
        ("There is much to say.\nIt is **acute appendicitis** then.", True),
        ("not acute appendicitis", False),
        ("appendicitis", False),
        ("...", False),
    ],
)
def test_texts(candidate: str, expected: bool) -> None:
    assert check(candidate, "Acute appendicitis", "text") is expected


def test_empty_and_unmeasured_answers_are_not_right() -> None:
    verifiers: tuple[Verifier, ...] = ("number", "choice", "math", "text", "none")
    assert not any(check(" ", "4", verifier) for verifier in verifiers)
    assert not check("4", "4", "none")


@pytest.mark.parametrize(
    ("references", "expected"),
    [
        (["A", "(C)", "D.", None], "choice"),
        (["4", "1,200", "$3.50", "12 km/h", "50 %", "3/4"], "number"),
        ([r"\frac{1}{2}", "4", "x^2", "(1, 2)"], "math"),
        (["yes", "No", "acute appendicitis"], "text"),
        (["The patient has had an infarction, so aspirin is given at once."] * 3, "none"),
        (["4"] * 97 + ["many"] * 3, "number"),
        (["4"] * 50 + ["many"] * 50, "text"),
        (["7-year-old child"], "text"),
        ([None, " "], "none"),
        ([], "none"),
    ],
)
def test_choose_verifier(references: list[str | None], expected: str) -> None:
    assert choose_verifier(references) == expected


def test_checkable() -> None:
    assert checkable("4", "number")
    assert not checkable("many", "number")
    assert not checkable("Aspirin", "choice")
    assert not checkable(" ", "text")
    assert not checkable("4", "none")

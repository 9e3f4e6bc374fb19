"""Labels of a closed list are compared as wholes."""

import pytest

from thinktune.text.labels import LabelList

LABELS = LabelList(
    "Violations:",
    ["double entry", "balance mismatch", "revenue"],
    "none",
    {"unbalanced entry": "double entry"},
)


@pytest.mark.parametrize(
    ("text", "named", "unknown", "problem"),
    [
        ("Violations: double entry; revenue", {"double entry", "revenue"}, (), None),
        ("Violations: Double-Entry | REVENUE.", {"double entry", "revenue"}, (), None),
        ("**Violations:** unbalanced entry", {"double entry"}, (), None),
        ("Violations: none", {"none"}, (), None),
        ("Violations: revenues", set(), ("revenues",), None),
        ("Violations: revenue; fraud", {"revenue"}, ("fraud",), None),
        ("Violations: none; revenue", set(), (), "contradictory"),
        ("Violations: none; fraud", set(), ("fraud",), "contradictory"),
        ("Violations: fraud; Fraud", set(), ("Fraud",), None),
        ("There is double entry.", set(), (), "missing"),
        ("Violations: ; ;", set(), (), "missing"),
        ("Violations: revenue\nViolations: double entry", {"double entry"}, (), None),
        ("", set(), (), "missing"),
    ],
)
def test_what_a_text_names(
    text: str, named: set[str], unknown: tuple[str, ...], problem: str | None
) -> None:
    found = LABELS.read(text)
    assert (found.named, found.unknown, found.problem) == (named, unknown, problem)

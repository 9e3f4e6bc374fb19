"""What is decided about mathematics before math-verify, which gets much of it wrong."""

import signal
import subprocess
import sys
import time

import pytest

from thinktune.text.mathematics import decided, expression
from thinktune.text.verifiers import check

DECIDED = [
    (r"$\{1,2\}$", "(1,2)", False),
    (r"The set is $\{1,2\}$.", "(1,2)", False),
    ("(0,1)", "[0,1]", False),
    ("5 or 6", "5", False),
    ("so the result is 5 or 6", "5", False),
    ("The answers are $5$ or $6$", "6", False),
    ("0.333", "1/3", True),
    ("0.33", r"\frac{1}{3}", True),
    ("0.34", "1/3", False),
    ("$0<x<1$", "(0,1)", True),
    (r"$0 < x \le 1$", "(0,1]", True),
    ("0<x≤1", "(0,1)", False),
    ("(1, 2)", "(1,2)", True),
    ("(2, 1)", "(1,2)", False),
    ("(1, 2, 3)", "(1,2)", False),
    (r"(\frac{1}{2}, 3)", "(0.5,3)", True),
    (r"so \boxed{\frac{2}{4}}", r"\frac{1}{2}", True),
    ("12 cm", "12", True),
    (r"$\pm 3$", "3", False),
    ("50%", "0.5", True),
    ("x^2+1", "x^2 + 1", True),
]


@pytest.mark.parametrize(("candidate", "reference", "same"), DECIDED)
def test_decided_without_algebra(candidate: str, reference: str, same: bool) -> None:
    assert decided(expression(candidate), expression(reference)) is same


@pytest.mark.parametrize(
    ("candidate", "reference", "same"),
    [
        (r"\boxed{2\sqrt{2}}", r"\sqrt{8}", True),
        ("4√2", r"\sqrt{32}", True),
        ("4√2", "4", False),
        ("$4√2$", "4", False),
        ("whether or not it rains, the answer is 5", "5", True),
        ("y = 3x + 1", "y = 2x + 1", False),
        ("4x + y = 1", "2x + 3y = 6", False),
        ("x = 5", "5", True),
        ("2x", "2", False),
        ("5 or 6", "6 or 5", True),
        ("$x=3$ or $x=4$", r"\{4,3\}", True),
        ("x^2 + 2", "2 + x^2", True),
    ],
)
def test_decided_by_algebra(candidate: str, reference: str, same: bool) -> None:
    assert decided(expression(candidate), expression(reference)) is None
    assert check(candidate, reference, "math") is same


@pytest.mark.parametrize(
    "hostile",
    [
        "(" * 2_000,
        r"\frac{" * 100 + "1" + "}{2}" * 100,
        "$x^{20000}$",
        "$2^{99999999999}$",
        "1+" * 5_000,
    ],
)
def test_what_only_costs_time_is_not_computed(hostile: str) -> None:
    started = time.monotonic()
    assert decided(expression(hostile), expression("9")) is False
    assert time.monotonic() - started < 0.5


HOSTILE = r"""
import signal, sys
from thinktune.text.verifiers import check_all
asked = False
def ask(number, frame):
    global asked
    asked = True
def stop():
    if asked:
        raise SystemExit(143)
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, ask)
    print("begins", flush=True)
    slow = [(f"$(x+y+z)^{{{n}}}+x$", f"$x*(x+y+z)^{{{n}}}$") for n in range(400, 416)]
    check_all(slow, "math", stop=stop)
    print("ends", flush=True)
"""


@pytest.mark.timeout(60)
def test_a_request_to_stop_is_answered_while_hostile_answers_are_judged() -> None:
    command = [sys.executable, "-c", HOSTILE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(3)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        assert process.wait(timeout=20) == 143
        assert time.monotonic() - asked < 2


@pytest.mark.parametrize(
    ("candidate", "reference", "same"),
    [
        ("2", "2^{10}", False),
        ("2^{5}", "2^{10}", False),
        ("1024", "2^{10}", True),
        ("9, 9, 3", "1, 2, 3", False),
        ("2, 1", "1, 2", True),
        ("1, 2", r"\{1,2\}", True),
        ("(x+1)(x-1)", "x^2-1", True),
        ("a+b", "b+a", True),
        ("n(n+1)/2", r"\frac{n(n+1)}{2}", True),
        (r"0 \le x < 1", "[0,1)", True),
        ("2 or -2", r"\pm 2", True),
        (r"2\frac{3}{4}", "2.75", True),
        (r"10^{100000}", r"10^{100000}", True),
        (r"\text{Evelyn}", "Evelyn", True),
        (r"\boxed{5} or \boxed{6}", "6", False),
    ],
)
def test_forms_of_one_value(candidate: str, reference: str, same: bool) -> None:
    assert check(candidate, reference, "math") is same

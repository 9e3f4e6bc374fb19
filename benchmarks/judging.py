"""How fast mathematical answers are judged: numbers, fractions, roots, polynomials and pairs.

    python benchmarks/judging.py --answers 20000

A fifth of them are of each kind.
"""

import argparse
import json
import random
import sys
import time

from thinktune.text.math_process import usable_cores
from thinktune.text.verifiers import check_all

WORDS = "After a long derivation that we leave out here we find the following. " * 3


def main() -> None:
    """Judges them once and prints the seconds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--answers", type=int, default=20_000)
    given = parser.parse_args()
    chance = random.Random(0)
    cases = []
    for number in range(given.answers):
        a, b = chance.randint(2, 999), chance.randint(2, 99)
        said, wanted = (
            (f"{a}", f"{a}.0"),
            (rf"\frac{{{a}}}{{{b}}}", rf"\frac{{{2 * a}}}{{{2 * b}}}"),
            (rf"{a}\sqrt{{{b}}}", rf"\sqrt{{{a * a * b}}}"),
            (f"x^2+{a}x+{b}", f"{b}+{a}x+x^2"),
            (f"({a},{b})", f"({b},{a})"),
        )[number % 5]
        cases.append((rf"{WORDS}\boxed{{{said}}}", wanted))
    began = time.perf_counter()
    right = sum(checked.correct for checked in check_all(cases, "math"))
    seconds = round(time.perf_counter() - began, 1)
    figures = {"answers": len(cases), "right": right, "seconds": seconds, "cores": usable_cores()}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()

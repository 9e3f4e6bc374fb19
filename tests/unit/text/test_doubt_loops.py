import random
import zlib
from collections import Counter

from thinktune.text.doubt_loops import LOOP_RULE, LOOP_TIMES, LOOP_WORDS, loops


def as_the_rule_says(text: str) -> bool:
    """LOOP_RULE word by word, at whatever cost of memory."""
    words = text.split()
    passages = Counter(zip(*(words[i:] for i in range(20)), strict=False))
    if passages and max(passages.values()) >= 3:
        return True
    tail = text.strip()[-2_000:].encode()
    return len(tail) >= 2_000 and len(tail) / len(zlib.compress(tail, 9)) > 5


def test_the_rule_names_its_numbers() -> None:
    assert LOOP_RULE == (
        "A text loops if some 20-word passage stands in it 3 times or more, or if zlib shrinks its"
        " last 2,000 characters more than 5 times."
    )
    assert (LOOP_WORDS, LOOP_TIMES) == (20, 3)


def test_loops() -> None:
    passage = " ".join(f"word{i}" for i in range(20))
    assert not loops(f"{passage} and {passage}")
    assert loops(f"{passage} and {passage} or {passage}")
    assert loops("ha" * 5000)  # one long word: no passage repeats, but the tail shrinks
    assert loops("ha " * 22)
    assert not loops("ha " * 21)
    assert not loops("")


def test_equal_to_the_rule_on_any_text() -> None:
    generator = random.Random(0)
    looped = 0
    for _ in range(1_500):
        known = [f"w{i}" for i in range(generator.choice((1, 2, 3, 30, 300)))]
        words = generator.choices(known, k=generator.randint(0, 200))
        passage = generator.choices(known, k=generator.randint(15, 25))
        for _ in range(generator.randint(0, 4)):
            at = generator.randint(0, len(words))
            words[at:at] = passage
        text = generator.choice((" ", "\n")).join(words) * generator.choice((1, 1, 1, 6))
        assert loops(text) == as_the_rule_says(text), text
        looped += loops(text)
    assert 300 < looped < 1_200

import re
import time

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.text.linear_regex import TooCostly, compile_pattern

PLACE = "recipe.yaml: data.filters.0.matches"


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}$",
        r"(?i)\bÄpfel\b",
        r"(?P<word>\w+)@(?:a|b)",
        r"[]a]",
        r"[^]a]",
        r"[\[\]&-]",
        r"[*+]+",
        r"\++",
        r"a|b*?",
        r"(?s)a.b",
        r"(?m)^b$",
        r"\x41é",
        r"\\<",
        r"",
        r"\.\-\/\_",
    ],
)
def test_found_where_re_finds_it(pattern: str) -> None:
    texts = [
        "2024-01",
        "x 2024-01",
        "ein äpfel.",
        "äpfels",
        "x@a",
        "a\nb",
        "]",
        "[",
        "&",
        "+",
        "Aé",
    ]
    texts += ["\\<", ".-/_", "", "aaab"]  # fmt: skip
    compiled = compile_pattern(pattern, PLACE)
    for text in texts:
        assert compiled.search(text) == bool(re.search(pattern, text)), text


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        (r"(a)\1", "backreferences cannot be searched"),
        (r"(?P<a>x)(?P=a)", "backreferences"),
        (r"a(?=b)", "lookahead"),
        (r"a(?!b)", "one of them with invert"),
        (r"(?<=a)b", "lookbehind"),
        (r"(?<!a)b", "lookbehind"),
        (r"(?>a+)b", "atomic groups"),
        (r"a++b", "possessive"),
        (r"(a)(?(1)b|c)", "conditions"),
        (r"a\Z", "write $"),
        (r"\<b\>", "write < alone"),
        (r"[a-z&&b]", "set operations"),
        (r"[[a]]", "set operations"),
        (r"(?x) a # b", "verbose"),
        (r"a(?#note)b", "comments"),
        (r"[a-z]{1000}{1000}", "multiple repeat"),
        (r"(?:\w{500}){500}", "too large"),
        (r"(", "not a regular expression"),
        (r"*a", "not a regular expression"),
        (r"x{,3}", "escape literal characters"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(pattern: str, says: str) -> None:
    with pytest.raises(SpecInvalid) as raised:
        compile_pattern(pattern, PLACE)
    assert raised.value.place == PLACE
    assert says in str(raised.value)
    assert repr(pattern) in str(raised.value)


@pytest.mark.parametrize(
    "pattern",
    [r"(a+)+$", r"(a|aa)+$", r"(.*a){20}$", r"(a?){50}a{50}$", r"(x+x+)+y", r"(.{1,40}a){1,9}!$"],
)
def test_hostile_patterns_take_no_longer(pattern: str) -> None:
    """Two of these take longer than the universe is old in `re`."""
    compiled = compile_pattern(pattern, PLACE)
    text = "a" * 100_000 + "b"
    started = time.process_time()
    if len(text) <= compiled.max_characters:
        assert not compiled.search(text)
    compiled.search(text[: compiled.max_characters])
    assert time.process_time() - started < 6


def test_a_text_that_might_take_seconds_is_refused() -> None:
    compiled = compile_pattern(r"(.{1,300}x){1,9}$", PLACE)
    assert compiled.search("abcx")
    with pytest.raises(TooCostly, match="longer than 13,333 characters"):
        compiled.search("a" * 13_334)
    assert compile_pattern(r"\bword\b", PLACE).search("a word " * 500_000)

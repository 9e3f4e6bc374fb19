"""Which language a text is in.

Prep calls `language(text)` for a row's question and answer, where the recipe names the languages
that it keeps, and drops a row whose language is another one by `SURE`; what is not told stays.

By py3langid (BSD; its model ships in its wheel): n-grams of letters, naive Bayes.
"""

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

UNKNOWN = "und"
"""ISO 639 for undetermined: too few letters, formulas."""
SURE = 0.5
"""A lower confidence is a guess, as short questions full of names have it."""
_LANGUAGES = (
    "af ar az be bg bn bs ca cs cy da de el en es et eu fa fi fr ga gl gu he hi hr hu hy id is it"
    " ja ka kk km kn ko lt lv mk ml mn mr ms my ne nl no pa pl ps pt ro ru si sk sl sq sr sv sw ta"
    " te th tl tr uk ur uz vi zh"
)
LANGUAGES = tuple(_LANGUAGES.split())
"""What can be told. Not Latin, which medical terms look like, nor languages that few datasets are
in and many short texts look like."""
NO_LANGUAGE = "zxx"
MIN_LETTERS = 12
MIN_LETTERS_UNSPACED = 4
"""Of scripts that write a word in one or two characters."""
PART_CHARACTERS = 400
"""The beginning, the middle and the end of a text are looked at, so much of each."""
_LETTER = re.compile(r"[^\W\d_]")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f]")


def language(text: str) -> tuple[str, float]:
    """The ISO 639-1 code of a text's language and how sure that is, from 0 to 1; `und` and 0 where
    it has too few letters."""
    sample = _sample(text)
    letters, unspaced = len(_LETTER.findall(sample)), len(_UNSPACED.findall(sample))
    if letters < MIN_LETTERS and unspaced < MIN_LETTERS_UNSPACED:
        return UNKNOWN, 0.0
    code, confidence = _identifier().classify(sample)
    return (UNKNOWN, 0.0) if code == NO_LANGUAGE else (code, confidence)


def _sample(text: str) -> str:
    text = text.strip()
    if len(text) <= 3 * PART_CHARACTERS:
        return text
    middle = (len(text) - PART_CHARACTERS) // 2
    parts = (
        text[:PART_CHARACTERS],
        text[middle : middle + PART_CHARACTERS],
        text[-PART_CHARACTERS:],
    )
    return "\n".join(parts)


def load_identifier() -> "LanguageIdentifier":
    """The model with all of its languages. It takes a second: callers keep what they narrow."""
    # Here, not above: it loads numpy, and only a recipe that names languages needs it.
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@lru_cache(maxsize=1)
def _identifier() -> "LanguageIdentifier":
    identifier = load_identifier()
    identifier.set_languages((*LANGUAGES, NO_LANGUAGE))
    return identifier

"""Whether a text is in the language that was asked for. `checks` asks for replies.

py3langid (BSD, 139 languages, naive Bayes over byte n-grams) tells languages apart in whole
sentences; it guesses in names and doses. So a text is taken for another language only where that is
clear: in at least four words, some language of wide use is six times as likely as the one wanted.
And whatever it says, a tenth of letters in a script that the language does not use is too much:
models that think in Chinese slip it into English answers.
"""

import functools
import unicodedata

from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.text.language import load_identifier

FEWEST_WORDS, FEWEST_LETTERS = 4, 15
"""Below these a text is judged by its script alone."""
WORD_LETTERS = 3
"""Letters that stand for a word in scripts without spaces."""
CLEARLY = 6.0
FOREIGN_SHARE = 0.1

_SCRIPTS = """
ar fa ps sd ug ur: ARABIC
be bg kk ky mk mn ru tt uk: CYRILLIC
hi mr ne sa: DEVANAGARI
as bn: BENGALI
he yi: HEBREW
sr: CYRILLIC LATIN
pa: GURMUKHI ARABIC
am: ETHIOPIC
el: GREEK
gu: GUJARATI
hy: ARMENIAN
ka: GEORGIAN
km: KHMER
kn: KANNADA
lo: LAO
ml: MALAYALAM
my: MYANMAR
or: ORIYA
si: SINHALA
ta: TAMIL
te: TELUGU
th: THAI
ko: HANGUL CJK
ja: CJK HIRAGANA KATAKANA FULLWIDTH HALFWIDTH KATAKANA-HIRAGANA
zh: CJK FULLWIDTH HALFWIDTH BOPOMOFO
"""
"""First words of the names of a language's letters in Unicode; Latin where none is listed. Latin
and Greek letters count as foreign to none: names, units and formulas are written in them."""

SCRIPTS = {
    code: frozenset(scripts.split())
    for codes, _, scripts in (line.partition(":") for line in _SCRIPTS.strip().splitlines())
    for code in codes.split()
}
NEUTRAL = {"LATIN", "GREEK", "MICRO", "MODIFIER", "MATHEMATICAL", "ANGSTROM", "OHM", "KELVIN"}


class Language:
    """One language, to compare texts with. Raises SpecInvalid for one that is not known."""

    def __init__(self, code: str, place: str) -> None:
        known = _identifier().labels
        if code not in known:
            raise SpecInvalid(place, f"no language '{code}' is known", near_misses(code, known))
        self._code = code
        self._scripts = SCRIPTS.get(code, frozenset({"LATIN"}))

    def is_language_of(self, text: str) -> bool:
        """Whether the text may well be in it; one without letters is."""
        scripts = [_script(char) for char in text if char.isalpha()]
        foreign = sum(s not in self._scripts and s not in NEUTRAL for s in scripts)
        if foreign > FOREIGN_SHARE * len(scripts):
            return False
        own = "LATIN" in self._scripts or any(script in self._scripts for script in scripts)
        if not own and len(scripts) >= FEWEST_WORDS:
            return False
        words = max(len(text.split()), len(scripts) // WORD_LETTERS if "CJK" in scripts else 0)
        if words < FEWEST_WORDS or len(scripts) < FEWEST_LETTERS:
            return True
        ranked = dict(_identifier().rank(text))
        return bool(max(ranked.values()) < CLEARLY * ranked[self._code])


def _script(char: str) -> str:
    return unicodedata.name(char, "").partition(" ")[0]


@functools.cache
def _identifier():  # type: ignore[no-untyped-def]  # the library has no types
    identifier = load_identifier()
    # Small languages beside large ones of their family make short texts a matter of luck.
    wide = [code for code in identifier.labels if len(code) == 2 and code not in SMALL]
    identifier.set_languages(wide)
    return identifier


SMALL = {"la", "eo", "vo", "ht", "nn", "nb", "oc", "an", "lb", "fy", "gl", "st", "sn", "ln", "lg"}
SMALL |= {"qu", "wa", "br", "gd", "mg", "rw", "xh", "zu", "ig", "yo", "ha", "so", "sw", "tl", "jv"}
SMALL |= {"ms", "mt", "ku", "se", "fo", "gn"}
"""Left out of the comparison."""

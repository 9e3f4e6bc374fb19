import random
import time

import pytest

from thinktune.text.language import LANGUAGES, SURE, language


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("What is the mechanism of action of warfarin?", "en"),
        ("A shop sells 343 hats in May and 706 hats in June.", "en"),
        ("Wie viele Hüte verkauft der Laden im Mai?", "de"),
        ("Quel est le mécanisme d'action de la warfarine ?", "fr"),
        ("¿Cuál es la capital de Francia?", "es"),
        ("华法林的作用机制是什么？", "zh"),
        ("ワルファリンの作用機序は何ですか？", "ja"),
        ("와파린의 작용 기전은 무엇입니까?", "ko"),
        ("كيف يعمل الوارفارين؟", "ar"),
        ("Как действует варфарин и какие у него побочные эффекты?", "ru"),
    ],
)
def test_languages(text: str, code: str) -> None:
    found, confidence = language(text)
    assert found == code
    assert code in LANGUAGES
    assert SURE < confidence <= 1


@pytest.mark.parametrize("text", ["", "hi", "2 + 2 = ?", "x^2 + 3x = 0", "😀 🎉", "好", "\ud800"])
def test_too_little_to_tell(text: str) -> None:
    assert language(text) == ("und", 0.0)


def test_a_long_text_is_looked_at_in_parts() -> None:
    english = "The patient was given the drug and felt better on the next day. "
    german = "Der Patient bekam das Medikament und fühlte sich am nächsten Tag besser. "
    assert language(english * 5 + german * 2_000)[0] == "de"
    started = time.process_time()
    for seed in range(5):
        language(english * 40_000 + str(random.Random(seed).random()))
    assert time.process_time() - started < 5  # 2.5 MB each; read whole it takes minutes

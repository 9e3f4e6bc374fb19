"""report.html in a real browser: hostile text stays text, filters and search work by keyboard."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, browser, has_browser

sys.path.insert(0, str(Path(__file__).parents[1] / "unit/tasks/evaluate/report"))
from test_comparison import evaluation
from test_report import HOSTILE, make

from thinktune.tasks.evaluate.report.comparison import page as comparison

pytestmark = pytest.mark.skipif(not has_browser(), reason="no chromedriver")
ARTICLES = "return document.querySelectorAll('#samples article').length"
READY = "return document.documentElement.dataset.readyAfterMs"
FOCUS = "return document.activeElement.closest('article')?.id ?? document.activeElement.id"


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    make(questions=60).write(path)
    return path.as_uri()


@pytest.fixture
def opened(window: Browser, page: str) -> Browser:
    window.open("about:blank")
    window.open(page)
    window.wait(READY)
    return window


def test_what_a_model_says_stays_text(opened: Browser) -> None:
    text = opened.run(
        "return document.querySelector('#samples .said > .draws > .text').textContent"
    )
    assert HOSTILE in text
    assert opened.run("return document.querySelectorAll('#samples script, #samples b').length") == 0


def test_filters_and_search(opened: Browser) -> None:
    assert opened.run(ARTICLES) == 20
    opened.run("document.querySelector('button[data-filter=broken]').focus()")
    opened.press("enter")
    assert opened.run("return document.getElementById('found').textContent").startswith("30 of 60")
    opened.press("/")
    assert opened.run(FOCUS) == "search"
    opened.press(*"what is 42?")
    opened.wait("return document.getElementById('found').textContent.startsWith('1 of 60')")
    assert opened.run("return document.querySelector('#samples article').id") == "q=q42"


def test_the_keyboard_goes_from_question_to_question(opened: Browser) -> None:
    opened.press("j", "j", "k")
    first = opened.run("return document.querySelector('#samples article').id")
    assert opened.run(FOCUS) == first


def test_a_link_to_one_sample(window: Browser, page: str) -> None:
    window.open("about:blank")
    window.open(f"{page}#q=q59")
    window.wait(READY)
    assert window.run("return document.querySelector('#samples article').id") == "q=q59"
    assert window.run(FOCUS) == "q=q59"


@pytest.mark.parametrize("width", [500, 1400])
def test_nothing_is_wider_than_the_window(opened: Browser, width: int) -> None:
    opened.resize(width, 900)
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert opened.run(wider) <= 0


@pytest.mark.parametrize("width", [500, 1400])
def test_a_comparison_is_no_wider_than_the_window(
    window: Browser, tmp_path: Path, width: int
) -> None:
    path = tmp_path / "comparison.html"
    runs = [evaluation(f"final-answer-qwen-1.5b-{n}f20cc11{n}") for n in range(4)]
    path.write_text(comparison(runs), encoding="utf-8")
    window.open(path.as_uri())
    window.resize(width, 900)
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert window.run(wider) <= 0
    assert window.run("return document.querySelectorAll('.outcomes svg').length") == 8

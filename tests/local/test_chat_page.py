"""The chat page in a real browser, from the real gateway: what the model says is hostile."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, browser, has_browser
from gateway import Gateway, gateway, wait_until

pytestmark = pytest.mark.skipif(not has_browser(), reason="no chromedriver")

HOSTILE = r"""# Heading

<script>document.title = "owned"</script><img src=x onerror="document.title='owned'">
[click](javascript:document.title='owned') ![image](https://evil.example/x.png)
[out](https://example.org/) <b onclick="x">bold</b> **strong** `code`

| a | b |
|---|---|
| 1 | 2 |

\( x^2 \) and \[ \frac{1}{2} \] and $$\href{javascript:alert(1)}{y}$$ costs $5 and $6

\( \includegraphics{https://evil.example/y.png} \htmlData{a=b}{c} \)
<style>body { display: none }</style><form action="https://evil.example"><input></form>
Final Answer: **12**"""
ANSWER = f"<think>\nfive and <script>document.title = 'owned'</script> seven\n</think>\n\n{HOSTILE}"
CONTENT = "document.querySelector('article:last-of-type .content')"
DONE = "return document.getElementById('stop').hidden && !document.querySelector('[aria-busy]')"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, tokenizer_file: Path) -> Iterator[Gateway]:
    with gateway(tmp_path_factory.mktemp("gateway"), tokenizer_file, key=None) as made:
        yield made


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(window: Browser, running: Gateway) -> Browser:
    """The page as somebody sees it who was never there."""
    running.script(text=ANSWER)
    window.resize(1100, 800)
    window.open(f"http://127.0.0.1:{running.port}/")
    window.run("localStorage.clear(); sessionStorage.clear()")
    window.open(f"http://127.0.0.1:{running.port}/")
    window.wait("return document.getElementById('model').textContent === 'tiny-run'")
    window.run(
        "window.broken = []; document.addEventListener('securitypolicyviolation',"
        " (event) => window.broken.push(event.violatedDirective + ' ' + event.blockedURI))"
    )
    return window


def ask(page: Browser, question: str = "How many hats?") -> None:
    page.run("document.getElementById('question').focus()")
    page.press(*question, "enter")
    page.wait("return document.querySelector('article')")
    page.wait(DONE)


def count(page: Browser, selector: str) -> int:
    found: int = page.run(f"return document.querySelectorAll({json.dumps(selector)}).length")
    return found


def test_what_a_model_says_is_shown_and_never_obeyed(page: Browser) -> None:
    ask(page)
    assert page.run("return document.title") == "tiny-run · thinktune"
    assert page.run("return window.broken") == []
    dangerous = "script, img, style, form, input, iframe, [onclick], [onerror], [style]"
    assert count(page, ", ".join(f"article {each}" for each in dangerous.split(", "))) == 0
    links = page.run("return [...document.querySelectorAll('article a')].map((a) => a.href)")
    assert links == ["https://evil.example/x.png", "https://example.org/"]  # to click, not loaded
    rel = page.run("return document.querySelector('article a').rel")
    assert rel == "noopener noreferrer nofollow"
    assert "<script>" in page.run(f"return {CONTENT}.textContent")
    assert count(page, "article table td") == 2 and count(page, "article strong") == 1
    requests = page.run("return performance.getEntriesByType('resource').map((e) => e.name)")
    origin = page.run("return location.origin")
    assert requests and all(name.startswith(origin) for name in requests), requests


def test_formulas_are_mathml_and_prices_are_not(page: Browser) -> None:
    ask(page)
    assert count(page, "article .content math msup") == 1
    assert count(page, "article .content math mfrac") == 1
    assert count(page, "article .math.display") == 2
    assert "costs $5 and $6" in page.run(f"return {CONTENT}.textContent")


def test_reasoning_is_folded_with_its_tokens_and_the_final_answer_is_marked(page: Browser) -> None:
    ask(page)
    summary = page.run("return document.querySelector('article summary').textContent")
    assert summary.startswith("Thought for ") and summary.endswith(" tokens")
    assert page.run("return document.querySelector('article details').open") is False
    assert page.run("return document.querySelector('.final span').textContent").strip() == "12"
    assert "Final Answer" not in page.run(f"return {CONTENT}.textContent")
    page.run("document.querySelector('article summary').focus()")
    page.press("enter")
    assert "seven" in page.run("return document.querySelector('details .body').innerText")


def test_side_by_side_asks_both(page: Browser, running: Gateway) -> None:
    page.run("document.getElementById('side-by-side').click()")
    ask(page)
    assert count(page, ".answers.two article") == 2
    labels = page.run(
        "return [...document.querySelectorAll('article h2')].map((h) => h.textContent)"
    )
    assert labels == ["Base model", "tiny-run"]
    assert sorted(each["model"] for each in running.asked()[-2:]) == ["base", "tiny-run"]


def test_a_conversation_goes_on_and_is_there_after_a_reload(
    page: Browser, running: Gateway
) -> None:
    running.script(text="Twelve.")
    ask(page, "one")
    ask(page, "two")
    assert len(running.asked()[-1]["prompt"]) > len(running.asked()[-2]["prompt"])
    page.open(f"http://127.0.0.1:{running.port}/")
    page.wait("return document.querySelectorAll('#conversations li').length === 1")
    page.run("document.getElementById('open-history').click()")
    page.run("document.querySelector('#conversations .pick').click()")
    assert count(page, ".user") == 2
    page.run("document.querySelector('#conversations .drop').click()")
    assert page.run("return localStorage.getItem('thinktune.conversations')") == "[]"
    assert count(page, ".user") == 0


def test_a_conversation_is_exported(page: Browser, running: Gateway) -> None:
    ask(page)
    page.run(
        "window.saved = [];"
        "HTMLAnchorElement.prototype.click = function () { window.saved.push(this.download) };"
        "URL.createObjectURL = (blob) => { blob.text().then((t) => window.saved.push(t));"
        " return 'blob:x' }"
    )
    page.run("document.getElementById('open-history').click()")
    page.run("document.getElementById('export-json').click()")
    name, text = page.wait("return window.saved.length === 2 && window.saved")
    assert name == "conversation.json"
    (turn,) = json.loads(text)["turns"]
    assert turn["question"] == "How many hats?"
    assert turn["answers"]["tuned"]["content"].startswith("# Heading")
    page.run("window.saved.length = 0; document.getElementById('export-markdown').click()")
    name, text = page.wait("return window.saved.length === 2 && window.saved")
    assert name == "conversation.md" and "## tiny-run\n\n<details>" in text


def test_what_lies_in_the_browsers_storage_is_hostile_too(page: Browser, running: Gateway) -> None:
    turn = {"question": "<img src=x>", "answers": {"tuned": {"content": HOSTILE, "reasoning": ""}}}
    stored: list[Any] = [{"id": "1", "title": "<b>x</b>", "turns": [turn]}, {"turns": 3}, None]
    for text in (json.dumps(stored), "{", "3"):
        page.run(f"localStorage.setItem('thinktune.conversations', {json.dumps(text)})")
        page.open(f"http://127.0.0.1:{running.port}/")
        page.wait("return document.getElementById('model').textContent === 'tiny-run'")
        for pick in range(count(page, "#conversations .pick")):
            page.run(f"document.querySelectorAll('#conversations .pick')[{pick}].click()")
            assert count(page, "main img, main script, nav b") == 0
            assert count(page, ".user") == 1


def test_an_answer_is_stopped_by_escape(page: Browser, running: Gateway) -> None:
    running.script(text="so it goes on " * 200, wait_s=0.05)
    page.run("document.getElementById('question').focus()")
    page.press(*"go", "enter")
    page.wait(f"return {CONTENT}?.textContent.length > 5")
    page.press("escape")
    page.wait(DONE)
    assert page.run("return document.querySelector('.foot').textContent") == "Stopped."
    wait_until(lambda: running.server.state.running == 0)


def start(page: Browser, running: Gateway, question: str) -> None:
    """Asks what is answered for a long time."""
    running.script(text="so it goes on " * 200, wait_s=0.05)
    page.run("document.getElementById('question').focus()")
    page.press(*question, "enter")
    last = "[...document.querySelectorAll('article .content')].at(-1)"
    page.wait(f"return {last}?.textContent.includes('so it')")


STORED = "return JSON.parse(localStorage.getItem('thinktune.conversations') ?? '[]')"


def test_an_answer_stays_in_its_conversation(page: Browser, running: Gateway) -> None:
    start(page, running, "first")
    page.run("document.getElementById('new').click()")
    page.wait(DONE)
    assert count(page, ".user") == 0
    (kept,) = page.wait(STORED)
    assert kept["title"] == "first" and len(kept["turns"]) == 1
    assert kept["turns"][0]["answers"]["tuned"]["content"].startswith("so it")
    running.script(text="Twelve.")
    page.run("document.getElementById('question').focus()")
    page.press(*"second", "enter")
    page.wait(f"return {CONTENT}?.textContent.trim() === 'Twelve.'")
    page.wait(DONE)
    assert [each["title"] for each in page.run(STORED)] == ["second", "first"]
    assert [len(each["turns"]) for each in page.run(STORED)] == [1, 1]
    assert len(running.asked()[-1]["prompt"]) < 100  # nothing of the first one stands in it


def test_a_conversation_that_is_deleted_while_it_is_answered_is_gone(
    page: Browser, running: Gateway
) -> None:
    running.script(text="Twelve.")
    ask(page, "first")
    start(page, running, "and then")
    page.run("document.querySelector('#conversations .drop').click()")
    page.wait(DONE)
    wait_until(lambda: running.server.state.running == 0)
    assert page.run(STORED) == [] and count(page, ".user") == 0


@pytest.mark.parametrize(
    "text",
    [
        "\\(x " * 20_000,
        "$$ x\n" * 20_001,
        "\\[ x\n" * 20_000,
        "\\[ x\n" * 20_000 + "\\] y",
        "[" + "\\(x " * 20_000 + "](https://example.org) \\)",
        "[a](" * 20_000,
    ],
)
def test_text_full_of_marks_does_not_freeze_the_page(page: Browser, text: str) -> None:
    took_ms = page.run(
        "return import('/page/render.js').then(({ show }) => {"
        f" const text = {json.dumps(text)}, began = performance.now();"
        " show(document.createElement('div'), text); return performance.now() - began })"
    )
    assert took_ms < 1000, took_ms


def test_tokens_are_those_that_the_server_counts(page: Browser, running: Gateway) -> None:
    running.script(text="<think>\n" + "so on " * 200, wait_s=0.05)
    page.run("document.getElementById('question').focus()")
    page.press(*"go", "enter")
    summary = "document.querySelector('article summary')"
    page.wait(f"return {summary}?.textContent === 'Thinking'")
    page.press("escape")
    page.wait(DONE)
    assert page.run(f"return {summary}.textContent") == "Thought"
    running.script(text="<think>\none two\n</think>\n\nFour.")
    said = running.chat()["usage"]["completion_tokens_details"]["reasoning_tokens"]
    ask(page)
    last = "[...document.querySelectorAll('article summary')].at(-1)"
    assert page.wait(f"return {last}?.textContent.includes('token') && {last}.textContent") == (
        f"Thought for {said} tokens"
    )


def test_documents_are_drawn_on_and_shown(page: Browser, running: Gateway) -> None:
    page.run(
        "const files = new DataTransfer();"
        "files.items.add(new File(['Red hats cost 12 coins.'], '<b>shop</b>.txt'));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true}))"
    )
    page.wait("return document.querySelectorAll('#documents li').length === 1")
    ask(page, "What do red hats cost?")
    assert count(page, ".passages li") == 1
    shown = page.run("return document.querySelector('.passages').textContent")
    assert "<b>shop</b>.txt, passage 1" in shown and "12 coins" in shown


def test_documents_are_limited_by_their_bytes(page: Browser) -> None:
    page.run(
        "const files = new DataTransfer();"
        "for (const name of ['a.txt', 'b.txt'])"
        " files.items.add(new File(['東'.repeat(400_000)], name));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: files, bubbles: true}))"
    )
    notice = page.wait("return document.getElementById('notice').textContent")
    assert notice == "b.txt is left out: documents may have 2 MB together."
    assert count(page, "#documents li") == 1


def test_an_error_is_said_and_the_question_comes_back(page: Browser, running: Gateway) -> None:
    running.script(status=400, message="the engine <b>refuses</b>")
    page.run("document.getElementById('question').focus()")
    page.press(*"hm", "enter")
    page.wait("return document.querySelector('.foot.bad')")
    text = page.run("return document.querySelector('.foot.bad').textContent")
    assert text == "the engine <b>refuses</b>"
    assert page.run("return document.getElementById('question').value") == "hm"


@pytest.mark.parametrize("width", [390, 1400])
def test_nothing_is_wider_than_the_window(page: Browser, width: int) -> None:
    page.resize(max(width, 500), 900)
    page.run("document.getElementById('side-by-side').click()")
    ask(page, "wide?")
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.run(wider) <= 0


def test_a_reader_of_the_screen_hears_of_it(page: Browser) -> None:
    ask(page)
    status = page.run("return document.getElementById('status').textContent")
    assert status == "Answered. Final answer: 12"
    unnamed = page.run(
        "return [...document.querySelectorAll('button, textarea, input')].filter((each) =>"
        " !each.textContent.trim() && !each.labels?.length && !each.getAttribute('aria-label')"
        " && each.type !== 'file').map((each) => each.outerHTML)"
    )
    assert unnamed == []


def test_a_key_is_asked_for(window: Browser, tmp_path: Path, tokenizer_file: Path) -> None:
    with gateway(tmp_path, tokenizer_file) as keyed:
        window.open(f"http://127.0.0.1:{keyed.port}/")
        window.wait("return document.getElementById('key-dialog').open")
        window.run(f"document.getElementById('key').value = {json.dumps(keyed.key)}")
        window.run("document.getElementById('key-ok').click()")
        window.wait("return document.getElementById('model').textContent === 'tiny-run'")
        assert window.run("return Object.values(localStorage).join()").find(str(keyed.key)) < 0

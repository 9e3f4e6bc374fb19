"""A column that a language model writes, as part of prep, against a server that misbehaves."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llm_server import Asked, LlmServer, llm_server
from prep_stage import Prep
from reading import Row, written

from thinktune.schema.errors import DataInvalid, Preempted, SpecInvalid, ThinktuneError
from thinktune.tasks.runtime.stopping import Stop

KEY = "sk-" + "t" * 20


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[LlmServer]:
    monkeypatch.setenv("TEST_KEY", KEY)
    with llm_server() as server:
        yield server


@pytest.fixture
def prep(tmp_path: Path) -> Prep:
    folder = tmp_path / "prep"
    folder.mkdir()
    return Prep(folder)


def spec(server: LlmServer, **settings: Any) -> Row:
    llm = {
        "provider": "openai",
        "model": "model-of-tests",
        "base_url": f"{server.url}/v1",
        "key_env": "TEST_KEY",
        "parameters": {"max_tokens": 40},
        "prices": {"input_per_million": 1000.0, "output_per_million": 2000.0},
        "budget": {"money": 1000.0},
        "concurrency": {"start": 4, "least": 1, "most": 8},
        "retries": {"first_wait_s": 0.02, "longest_wait_s": 0.1, "give_up_after_s": 3.0},
        **settings.pop("llm", {}),
    }
    return {"llm": llm, "prompt": "Sum up {question}", "column": "summary", **settings}


def rows_of(count: int) -> list[Row]:
    return [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(count)]


ANSWER = {"answer": "{answer}\n\nFinal Answer: {summary}", "final_answer": "Final Answer:"}


def test_the_column_is_learned_in_the_order_of_the_rows(
    prep: Prep, endpoint: LlmServer, tmp_path: Path
) -> None:
    """However late a reply comes: the artifact is the same to the bit."""
    path = written(tmp_path, rows_of(30))
    endpoint.latency_s = 0.02
    made = prep.run(path, generate=spec(endpoint), **ANSWER)
    assert made.card["samples"][0]["answer"].startswith("0\n\nFinal Answer: The gist of it is")
    assert len(made.rows("train")) == 30
    paid = len(endpoint.bills)
    again = prep.run(path, generate=spec(endpoint), **ANSWER)
    assert [f.sha256 for f in again.manifest.files] == [f.sha256 for f in made.manifest.files]
    assert len(endpoint.bills) == paid == 30


def test_rows_without_a_usable_reply_are_bad_rows(
    prep: Prep, endpoint: LlmServer, tmp_path: Path
) -> None:
    path = written(tmp_path, [*rows_of(20), {"question": None, "answer": "a"}])
    path.write_text(path.read_text() + '{"question": \n')
    endpoint.decide = lambda asked: "too long" if asked.prompt.endswith(" 3 + 3?") else None
    with pytest.raises(DataInvalid, match="3 of 22 rows cannot be used") as caught:
        prep.run(path, generate=spec(endpoint), **ANSWER)
    for said in ("language model: truncated", "own.jsonl:4", "language model: no:question"):
        assert said in str(caught.value)
    made = prep.run(path, generate=spec(endpoint), max_bad_fraction=0.2, **ANSWER)
    drops = {drop["reason"]: drop for drop in made.card["drops"]}
    assert drops["language model: truncated"]["remedy"].startswith("raise data.generate.llm")
    assert drops["not JSON"]["count"] == 1


def test_drafts_that_agree_with_the_reference_are_kept(
    prep: Prep, endpoint: LlmServer, tmp_path: Path
) -> None:
    """Think parts for rows that have only question and answer."""

    def reply(prompt: str) -> str:
        number = int(prompt.split()[0])
        wrong = endpoint.asked[prompt] == 1 and number % 2
        return f"<think>double it</think>It is {-1 if wrong else 2 * number}."

    endpoint.reply = reply
    drafts = spec(
        endpoint,
        prompt="{question}",
        column="draft",
        reasoning_column="thought",
        reference="answer",
        drafts=3,
    )
    made = prep.run(
        written(tmp_path, rows_of(10)),
        generate=drafts,
        columns={"reasoning": "thought"},
        require_reasoning=True,
    )
    assert len(made.rows("train")) == 10
    assert made.card["samples"][0]["reasoning"] == "<think>\ndouble it\n</think>\n\n"
    assert made.card["notes"]["replies of the language model looked at"] == 15


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"prompt": "Sum up {qestion}"}, "did you mean 'question'"),
        ({"column": "answer"}, "the rows have a column 'answer' already"),
        ({"llm": {"budget": {"money": 0.001}}}, "budget"),
    ],
)
def test_faults_of_the_recipe_end_prep(
    prep: Prep, endpoint: LlmServer, tmp_path: Path, settings: Row, fault: str
) -> None:
    with pytest.raises(ThinktuneError, match=fault) as caught:
        prep.run(written(tmp_path, rows_of(5)), generate=spec(endpoint, **settings))
    assert caught.value.exit_code in (64, SpecInvalid.exit_code)
    assert KEY not in str(caught.value)


def test_a_request_to_stop_while_the_model_is_asked(
    prep: Prep, endpoint: LlmServer, tmp_path: Path
) -> None:
    stop = Stop()

    def decide(asked: Asked) -> None:
        stop.requested = asked.number > 5

    endpoint.decide = decide
    with pytest.raises(Preempted):
        prep.run(written(tmp_path, rows_of(200)), stop=stop, generate=spec(endpoint))
    endpoint.decide = lambda asked: None
    prep.run(written(tmp_path, rows_of(200)), generate=spec(endpoint))
    assert len(endpoint.bills) <= 200 + 8


RUN = """
import sys
from pathlib import Path
sys.path[:0] = {path!r}
import json
from prep_stage import Prep
prep = Prep.__new__(Prep)
prep.folder, prep.url, prep._runs = Path({folder!r}), {url!r}, {number}
prep.run(Path({file!r}), generate=json.loads({spec!r}))
"""


def test_killed_at_random_and_started_again(
    prep: Prep, endpoint: LlmServer, tmp_path: Path
) -> None:
    """kill -9 while it is paid: the next process pays for what was under way, no more."""
    endpoint.latency_s = 0.05
    file = written(tmp_path, rows_of(60))
    for number, wait_s in enumerate((0.9, 1.2, 1.5), start=50):
        code = RUN.format(
            path=sys.path,
            folder=str(prep.folder),
            url=prep.url,
            number=number,
            file=str(file),
            spec=json.dumps(spec(endpoint)),
        )
        process = subprocess.Popen([sys.executable, "-c", code], env=os.environ)
        started = len(endpoint.bills)
        deadline = time.monotonic() + 30
        while len(endpoint.bills) < started + 5 and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.02)
        time.sleep(wait_s / 10)
        process.send_signal(signal.SIGKILL)
        process.wait()
    made = prep.run(file, generate=spec(endpoint))
    assert len(made.rows("train")) == 60
    # Eight are under way at most, and each of three kills can lose them once.
    assert 60 <= len(endpoint.bills) <= 60 + 3 * 8

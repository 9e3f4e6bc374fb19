"""From a run to answers, in real processes: trained, judged, refused by the gate, served."""

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import thinktune
from serving import Serving, serving
from workshop import Workshop, artifact

from thinktune.text.think import split_generated

RUN = "served"


@pytest.fixture(scope="module")
def judged(shop: Workshop) -> Workshop:
    ended = shop.run("--run", RUN)
    assert ended.code == 0, ended.err
    return shop


def test_a_run_that_is_not_promoted_is_refused(judged: Workshop, tmp_path: Path) -> None:
    ended = thinktune("serve", RUN, "--local", "--store", judged.store, "--port", "0")
    assert ended.code == 64
    assert f"run {RUN}: its evaluation did not promote it: " in ended.err
    assert "format_rate of tuned is not at least 0.95" in ended.err
    assert "--unpromoted" in ended.err
    ended = thinktune("chat", RUN, "Hello", "--store", judged.store)
    assert ended.code == 64 and "did not promote it" in ended.err


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    ended = thinktune("serve", "no-run", "--local", "--store", str(tmp_path), "--port", "0")
    assert (ended.code, "stage prep of run no-run has committed nothing" in ended.err) == (66, True)
    ended = thinktune("serve", "no-run")
    assert ended.code == 64 and "add --local" in ended.err
    for command in (("serve", "base", "--local"), ("chat", "base", "x")):
        ended = thinktune(*command, "--store", str(tmp_path))
        assert ended.code == 64 and "give the run another name" in ended.err


@pytest.fixture(scope="module")
def running(judged: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    options = ("--store", judged.store, "--unpromoted", "--engine", "transformers")
    with serving(folder, RUN, *options, up_s=120, OMP_NUM_THREADS="1") as made:
        yield made


def test_answers_are_those_that_were_judged(
    judged: Workshop, running: Serving, tmp_path: Path
) -> None:
    folder = artifact(judged.store, RUN, "evaluate", tmp_path)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    report = json.loads((folder / "report.json").read_text())
    asked = {each["id"]: each["question"] for each in report["side_by_side"]}
    compared = 0
    for sample in samples:
        if sample["question_id"] not in asked or sample["arm"] not in ("base", "tuned"):
            continue
        model = RUN if sample["arm"] == "tuned" else "base"
        found = running.chat(asked[sample["question_id"]], model=model, max_tokens=8)
        parsed = split_generated(sample["text"], prompt_opens_think=False)
        message = found["message"]
        assert (message["reasoning"] or "", message["content"]) == (
            parsed.thinking,
            parsed.answer.strip(),
        )
        assert (found["finish_reason"] == "stop") == sample["finished"]
        compared += 1
    assert compared >= 4


def test_an_engine_that_is_killed_comes_back(running: Serving) -> None:
    (engine,) = running.engines()
    os.kill(engine, signal.SIGKILL)
    assert running.chat("Hello", model=RUN, max_tokens=4)["finish_reason"]
    assert "the engine ended with code -9" in running.text()
    running.wait_for(f" serves {RUN} at ", 120, times=2)


def test_no_engine_outlives_a_server_that_is_killed(running: Serving) -> None:
    (engine,) = running.engines()
    (server,) = (int(pid) for pid in _parents(engine))
    os.kill(server, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{engine}/stat").exists() and _state(engine) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert running.process.wait(30) == 137


def _parents(pid: int) -> list[str]:
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]]


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

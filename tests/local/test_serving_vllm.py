"""vLLM itself behind the gateway, on a CPU. Needs THINKTUNE_VLLM_PYTHON, as `test_vllm` says."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Serving, serving

PYTHON = os.environ.get("THINKTUNE_VLLM_PYTHON", "")
RUN = "smol"
UP_S = 400.0

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="THINKTUNE_VLLM_PYTHON is not set"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    from served_run import commit_run

    folder = tmp_path_factory.mktemp("serving")
    url = f"file://{folder}/store"
    commit_run(url, folder / "made", RUN)
    options = ("--store", url, "--unpromoted", "--engine", "vllm", "--window", "1024")
    more = {"THINKTUNE_VLLM_PYTHON": PYTHON, "OMP_NUM_THREADS": "1"}
    with serving(folder, RUN, *options, up_s=UP_S, **more) as made:
        yield made


def test_base_and_tuned_answer(running: Serving) -> None:
    base = running.chat("Name three colors, please.", model="base", max_tokens=24)
    tuned = running.chat("Name three colors, please.", model=RUN, max_tokens=24)
    assert base["message"]["content"] != tuned["message"]["content"]
    assert running.request("GET", "/readyz")[0] == 200


def test_side_by_side_at_the_same_moment(running: Serving) -> None:
    """Alone and beside the other arm, each says the same."""
    import threading

    question, found = "Count from one to ten.", {}
    alone = {
        model: running.chat(question, model=model, max_tokens=24)["message"]["content"]
        for model in ("base", RUN)
    }

    def ask(model: str, number: int) -> None:
        answer = running.chat(question, model=model, max_tokens=24)
        found[model, number] = answer["message"]["content"]

    threads = [
        threading.Thread(target=ask, args=(model, n)) for n in range(2) for model in ("base", RUN)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {model for (model, _), text in found.items() if text == alone[model]} == {"base", RUN}
    assert len(found) == 4


def test_an_answer_in_a_form(running: Serving) -> None:
    schema = {
        "type": "object",
        "properties": {"color": {"enum": ["red", "blue"]}},
        "required": ["color"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "color", "schema": schema}}
    for model in ("base", RUN):
        found = running.chat("A color?", model=model, response_format=form, max_tokens=60)
        assert json.loads(found["message"]["content"])["color"] in ("red", "blue")


def test_the_engines_key_stands_nowhere(running: Serving) -> None:
    (engine,) = running.engines()
    environ = Path(f"/proc/{engine}/environ").read_bytes().split(b"\0")
    (key,) = [each[13:] for each in environ if each.startswith(b"VLLM_API_KEY=")]
    assert len(key) > 20 and key not in running.log.read_bytes()
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # one that has ended
            assert key not in place.read_bytes()


def test_nothing_of_the_engine_is_let_through(running: Serving) -> None:
    for path in ("/v1/completions", "/tokenize", "/invocations", "/adapters", "/health", "/docs"):
        for method in ("GET", "POST", "DELETE"):
            assert running.request(method, path, {})[0] == 404, path


def test_an_engine_that_is_stopped_is_unready(running: Serving) -> None:
    (engine,) = running.engines()
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(engine)], capture_output=True, text=True
    ).stdout.split()
    for pid in map(int, children):
        os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + 90
    while running.request("GET", "/readyz")[0] != 503:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    for pid in map(int, children):
        os.kill(pid, signal.SIGCONT)
    while running.request("GET", "/readyz")[0] != 200:
        assert time.monotonic() < deadline
        time.sleep(0.5)

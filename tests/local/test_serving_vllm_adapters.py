"""vLLM itself, whose adapters change while it serves, on a CPU. Needs THINKTUNE_VLLM_PYTHON, as
`test_vllm` says."""

import os
import threading
from collections.abc import Iterator

import pytest
from serving import Serving
from serving_pod import SERVER, Pod, models, serving_pod

PYTHON = os.environ.get("THINKTUNE_VLLM_PYTHON", "")
UP_S = 400.0

pytestmark = [
    pytest.mark.skipif(not PYTHON, reason="THINKTUNE_VLLM_PYTHON is not set"),
    pytest.mark.timeout(900),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Pod:
    from served_run import commit_run

    folder = tmp_path_factory.mktemp("pod")
    url = f"file://{folder}/store"
    for run, std in (("one", 0.02), ("two", 0.06)):
        commit_run(url, folder / run, run, std=std)
    made = Pod(folder, url)
    made.desire("one")
    return made


@pytest.fixture(scope="module")
def running(cluster: Pod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    more = {"THINKTUNE_VLLM_PYTHON": PYTHON, "OMP_NUM_THREADS": "1"}
    with serving_pod(folder, cluster, "vllm", up_s=UP_S, **more) as made:
        yield made


def answer(running: Serving, model: str) -> str:
    found = running.chat("Name three colors, please.", model=model, max_tokens=24)
    return str(found["message"]["content"])


def test_a_run_comes_and_goes_under_load(running: Serving, cluster: Pod) -> None:
    cluster.wait_for_state(revision=1, runs=["one"], fault=None)
    first, found, faults, stopped = answer(running, "one"), set(), [], threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            try:
                found.add(answer(running, SERVER))
            except Exception as error:  # noqa: BLE001 - that there is none is the point
                faults.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    cluster.desire("two", "one")
    cluster.wait_for_state(revision=cluster.revision, fault=None)
    second = answer(running, "two")
    assert models(running) == {SERVER: "two", "two": None, "one": None, "base": None}
    cluster.desire("two")
    cluster.wait_for_state(revision=cluster.revision, runs=["two"])
    cluster.desire("one", "two")
    cluster.wait_for_state(revision=cluster.revision, fault=None)
    stopped.set()
    asking.join()
    assert faults == []
    assert first != second
    assert found == {first, second}
    assert answer(running, SERVER) == answer(running, "one") == first
    assert answer(running, "two") == second

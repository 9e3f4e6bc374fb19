"""Runs that change while a server serves them, in real processes: as a pod has them."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
from serving import Serving
from serving_pod import SERVER, Pod, models, serving_pod
from workshop import Workshop

from thinktune.store import open_store

RUNS = ("one", "two")


@pytest.fixture(scope="module")
def trained(shop: Workshop) -> Workshop:
    """Two runs whose adapters differ."""
    for run, lr in zip(RUNS, ("0.01", "0.05"), strict=True):
        ended = shop.run("--run", run, "--until", "train", "--set", f"train.lr={lr}")
        assert ended.code == 0, ended.err
    return shop


@pytest.fixture(scope="module")
def cluster(trained: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    made = Pod(tmp_path_factory.mktemp("pod"), trained.store)
    made.desire("one")
    return made


@pytest.fixture(scope="module")
def running(cluster: Pod, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("serving")
    with serving_pod(folder, cluster, "transformers", up_s=180, OMP_NUM_THREADS="1") as made:
        yield made
    assert cluster.state() == {}  # it takes back what it has said


def answer(running: Serving, model: str) -> str:
    # Drawn, because what is likeliest after six steps of training is nothing at all.
    drawn = {"temperature": 2.0, "top_p": 1.0, "seed": 7, "max_tokens": 12}
    found = running.chat("How many hats?", model=model, **drawn)
    return json.dumps(found["message"])


def test_it_serves_what_it_is_to_from_the_start(running: Serving, cluster: Pod) -> None:
    cluster.wait_for_state(pod="shop-0", revision=1, runs=["one"], fault=None)
    assert models(running) == {SERVER: "one", "one": None, "base": None}
    assert answer(running, SERVER) == answer(running, "one")


def test_a_run_comes_under_load_and_none_is_lost(running: Serving, cluster: Pod) -> None:
    first = answer(running, "one")
    stopped, found, faults = threading.Event(), [], []

    def ask() -> None:
        while not stopped.is_set():
            try:
                found.append(answer(running, SERVER))
            except Exception as error:  # noqa: BLE001 - that there is none is the point
                faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    cluster.desire("two", "one")
    cluster.wait_for_state(revision=cluster.revision, fault=None)
    second = answer(running, "two")
    cluster.desire("two")  # and the other one goes
    cluster.wait_for_state(revision=cluster.revision, runs=["two"])
    cluster.desire("one", "two")
    cluster.wait_for_state(revision=cluster.revision)
    stopped.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert first != second
    assert set(found) == {first, second}
    assert answer(running, SERVER) == answer(running, "one") == first  # loaded anew, and the same


def test_what_cannot_be_served_changes_nothing(running: Serving, cluster: Pod) -> None:
    before = answer(running, SERVER)
    cluster.desire("two", "one", two="0" * 64)
    state = cluster.wait_for_state(revision=cluster.revision - 1, runs=["one", "two"])
    deadline = time.monotonic() + 60
    while not state.get("fault"):
        assert time.monotonic() < deadline, state
        state = cluster.state()
        time.sleep(0.1)
    assert "its adapter is another one than was promoted" in str(state["fault"])
    assert state["tried"] == cluster.revision
    assert answer(running, SERVER) == before
    cluster.desire("one", "two")
    cluster.wait_for_state(revision=cluster.revision, fault=None)


def test_a_damaged_adapter_is_found_before_the_engine_has_it(
    trained: Workshop, running: Serving, cluster: Pod
) -> None:
    before = answer(running, SERVER)
    cluster.desire("one")
    cluster.wait_for_state(revision=cluster.revision, runs=["one"])
    store = open_store(trained.store)
    (key,) = [
        info.key
        for info in store.list("runs/two/train")
        if info.key.endswith("adapter_model.safetensors") and "/attempts/" in info.key
        and "/checkpoints/" not in info.key
    ]  # fmt: skip
    path = store.local_path(key)
    assert path is not None
    kept = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    cluster.desire("two", "one")
    deadline = time.monotonic() + 60
    while not (fault := cluster.state().get("fault")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "adapter_model.safetensors" in str(fault)
    assert answer(running, SERVER) == before
    path.write_bytes(kept)
    cluster.wait_for_state(revision=cluster.revision, fault=None, runs=["two", "one"])


def test_an_engine_that_is_killed_comes_back_with_them(running: Serving, cluster: Pod) -> None:
    before = answer(running, SERVER)
    (engine,) = running.children()
    os.kill(engine, signal.SIGKILL)
    assert answer(running, SERVER) == before
    assert models(running) == {SERVER: "two", "two": None, "one": None, "base": None}

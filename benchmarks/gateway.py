"""What the gateway costs: the same questions to a server and to the engine behind it, in one run.

    python benchmarks/gateway.py RUN --store URL --engine vllm --tokens 64

serves a run as `thinktune serve RUN --local` does, and asks the gateway for chats and the engine
for completions of the very prompts that the gateway makes of them, in turns, so that what else the
machine does meets both. THINKTUNE_VLLM_PYTHON names a Python with vLLM. Prints one JSON line for
each number of clients: what both gave, the gateway's share of the engine's tokens per second (the
median of all rounds, and each of them), by how many milliseconds the gateway's medians are
longer, and the processor time of the gateway's own process, which other work on the machine hardly
changes. `--questions` is a text file; without one, prompts of 10 to 200 words are made up.
"""

import argparse
import asyncio
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thinktune.launch.load.drive import Load, drive
from thinktune.launch.load.questions import read_questions
from thinktune.launch.load.timing import streamed
from thinktune.schema.load import LoadLevel, Spread
from thinktune.schema.serve import ServeTask, ServeTimes
from thinktune.store import open_store
from thinktune.tasks.serve.engine.choose import choose, look
from thinktune.tasks.serve.engine.client import Generation
from thinktune.tasks.serve.gateway.chat_api import ChatRequest
from thinktune.tasks.serve.gateway.keys import Keys
from thinktune.tasks.serve.gateway.prompts import Prompts
from thinktune.tasks.serve.inputs import read_served
from thinktune.tasks.serve.server import Server
from thinktune.text.tokens import Encoder

QUESTIONS = 32
SHORTEST, LONGEST = 10, 200
UP_S = 600.0
WAYS = ("engine", "gateway")


def main() -> None:
    """Starts the server, measures, prints figures as soon as it has them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--store", required=True)
    parser.add_argument("--engine", default="auto", choices=["auto", "vllm", "transformers"])
    parser.add_argument("--questions", type=Path)
    parser.add_argument("--concurrency", default="1,16")
    parser.add_argument("--requests", default="8,32", help="of each number of clients, a round")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["server"], help="for a process that this one starts")
    given = parser.parse_args()
    if given.part:
        asyncio.run(_serve(given))
        return
    # So that a `timeout` ends the server too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _server() as said:
        bodies = {way: said[way]["bodies"] for way in WAYS}
        _say({"machine": platform.platform(), "cores": os.cpu_count(), "chosen": said["chosen"]})
        _measure(said, bodies, 4, 4)  # kernels, caches, connections
        for clients, requests in zip(
            given.concurrency.split(","), given.requests.split(","), strict=True
        ):
            before = os.getloadavg()[0]
            cpu_s = _cpu_s(said["pid"])
            rounds = [
                _measure(said, bodies, int(clients), int(requests)) for _ in range(given.rounds)
            ]
            cpu_s = _cpu_s(said["pid"]) - cpu_s
            _say({"load_before": round(before, 1), **_figures(int(clients), rounds, cpu_s)})


def _cpu_s(pid: int) -> float:
    """Seconds that a process has computed, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _questions(path: Path | None) -> Sequence[str]:
    if path is not None:
        return read_questions(path)
    step = (LONGEST - SHORTEST) // QUESTIONS
    words = ["a", "shop", "has", "red", "hats", "and", "blue", "ones", "how", "many", "are", "left"]
    return [
        f"{number}. " + " ".join(words[n % len(words)] for n in range(SHORTEST + number * step))
        for number in range(QUESTIONS)
    ]


def _say(figures: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()


@contextmanager
def _server() -> Iterator[dict[str, Any]]:
    """What a server of another process says of itself, while the block runs."""
    with TemporaryDirectory(prefix="gateway-") as folder:
        command = [sys.executable, __file__, *sys.argv[1:], "--part", "server"]
        log = Path(folder, "log")
        with log.open("wb") as errors:
            process = subprocess.Popen(command, stdout=errors, stderr=errors, cwd=folder)
        try:
            yield _up(process, Path(folder, "up.json"), log)
        finally:
            process.terminate()
            process.wait()


def _up(process: "subprocess.Popen[bytes]", path: Path, log: Path) -> dict[str, Any]:
    deadline = time.monotonic() + UP_S
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit("the server is not up:\n" + log.read_text(errors="replace")[-3000:])
        time.sleep(0.2)
    found: dict[str, Any] = json.loads(path.read_text())
    return found


async def _serve(given: argparse.Namespace) -> None:
    task = ServeTask(
        run=given.run,
        store=given.store,
        port=0,
        unpromoted=True,
        engine=given.engine,
        window=2048,
        times=ServeTimes(unready_s=60, hung_s=900),
    )
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    with TemporaryDirectory(prefix="gateway-weights-") as folder:
        served = read_served(task, open_store(task.store), Path(folder))
        chosen = choose(task.engine, await look())
        server = Server(task, served, chosen, Keys([]), None)
        serving = asyncio.create_task(server.serve(stopped, stopped))
        while not server.supervisor.up and not serving.done():
            await asyncio.sleep(0.1)
        prompts = Prompts(served.template, Encoder(served.weights / "tokenizer.json"), 2048)
        chats = [
            {
                "model": served.run,
                "messages": [{"role": "user", "content": question}],
                "max_tokens": given.tokens,
                "temperature": 0.0,
            }
            for question in _questions(given.questions)
        ]
        one = Generation(served.run, (), given.tokens, served.stop_ids, 0.0, 1.0)
        made = [prompts.render(ChatRequest.model_validate(chat), [], 0).ids for chat in chats]
        supervisor = server.supervisor
        said = {
            "pid": os.getpid(),
            "chosen": f"{chosen.kind} ({chosen.reason})",
            "gateway": {
                "url": f"http://127.0.0.1:{server.port}/v1/chat/completions",
                "key": None,
                "bodies": [streamed(chat) for chat in chats],
            },
            "engine": {
                "url": f"{supervisor.url}/v1/completions",
                "key": supervisor.key,
                "bodies": [replace(one, prompt_ids=ids).body() for ids in made],
            },
        }
        Path("up.part").write_text(json.dumps(said))
        Path("up.part").rename("up.json")
        await serving


def _measure(
    said: dict[str, Any],
    bodies: dict[str, list[dict[str, Any]]],
    clients: int,
    requests: int,
) -> dict[str, LoadLevel]:
    """One round: both are asked the same questions, the engine first. Each round has the same, so
    that a prefix cache helps both or neither."""
    found = {}
    for way in WAYS:
        load = Load(said[way]["url"], said[way]["key"], bodies[way], [clients], requests, 600.0)
        levels, _ = drive(load, lambda _: None)
        found[way] = levels[0]
        if levels[0].failures:
            sys.exit(f"{way}: {levels[0].failures}")
    return found


def _figures(clients: int, rounds: list[dict[str, LoadLevel]], cpu_s: float) -> dict[str, Any]:
    ratios = [each["gateway"].tokens_per_s / each["engine"].tokens_per_s for each in rounds]
    figures: dict[str, Any] = {
        "clients": clients,
        "answers": [each["gateway"].answered for each in rounds],
    }
    for way in WAYS:
        figures[way] = {
            "tokens": sum(each[way].tokens for each in rounds),
            "tokens_per_s": round(statistics.median(each[way].tokens_per_s for each in rounds), 1),
            "first_token_ms": round(_median(each[way].first_token for each in rounds), 2),
            "latency_ms": round(_median(each[way].latency for each in rounds), 2),
        }
    answers = sum(each["gateway"].answered for each in rounds)
    figures["gateway_cpu_ms"] = {
        "answer": round(1000 * cpu_s / answers, 2),
        "token": round(1000 * cpu_s / figures["gateway"]["tokens"], 3),
    }
    figures["throughput_ratio"] = round(statistics.median(ratios), 4)
    figures["ratios"] = [round(ratio, 4) for ratio in ratios]
    for name in ("first_token", "latency"):
        longer = [
            1000 * (_s(getattr(each["gateway"], name)) - _s(getattr(each["engine"], name)))
            for each in rounds
        ]
        figures[f"{name}_longer_ms"] = round(statistics.median(longer), 2)
        figures[f"{name}_longer_ms_by_round"] = [round(value, 2) for value in longer]
    return figures


def _s(spread: Spread | None) -> float:
    assert spread is not None
    return spread.median_s


def _median(spreads: Iterator[Spread | None]) -> float:
    return 1000 * statistics.median(_s(each) for each in spreads)


if __name__ == "__main__":
    main()

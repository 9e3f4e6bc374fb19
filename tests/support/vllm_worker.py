"""Answers requests by vLLM in an environment of its own: JSON on stdin, JSON lines on stdout.

    python vllm_worker.py SCENARIO

`answers` answers all requests, `likelihoods` first says those of the completions. `killed` and
`hangs` send SIGKILL or SIGSTOP to vLLM's process after the first answer. Each line is an answer, or
what ended the generation.
"""

import json
import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from thinktune.schema.errors import ThinktuneError
from thinktune.store import open_store
from thinktune.tasks.generate import vllm
from thinktune.tasks.generate.protocol import Completion, Request, Sampling
from thinktune.tasks.runtime.progress import Reporter
from thinktune.tasks.runtime.stopping import Stop

SIGNALS = {"killed": signal.SIGKILL, "hangs": signal.SIGSTOP}


def say(line: Any) -> None:
    """One line for the test, apart from what vLLM prints."""
    sys.stdout.write(f"LINE {json.dumps(line)}\n")
    sys.stdout.flush()


def main() -> None:
    """Reads the requests and answers them."""
    scenario, given = sys.argv[1], json.load(sys.stdin)
    requests = [Request(*each[:1], tuple(each[1]), *each[2:]) for each in given["requests"]]
    sampling = Sampling.model_validate(given["sampling"])
    if scenario == "hangs":
        vllm.STALL_S = 5.0
    engine = vllm.VllmEngine(
        Path(given["weights"]),
        Path(given["adapter"]),
        repo="test",
        base=given["base"],
        dtype="auto",
        window=given["window"],
        scores=scenario == "likelihoods",
    )
    with tempfile.TemporaryDirectory() as folder:
        reporter = Reporter(open_store(f"file://{folder}"), "r", "evaluate", "a")
        batches = engine.batches(requests, sampling)
        reporter.phase("generate", engine.work(batches, sampling), engine.unit)
        sent = False
        if scenario == "likelihoods":
            texts = [Completion(*each) for each in given["completions"]]
            for each in engine.likelihoods(texts, reporter, Stop()):
                say([each.log_probability, each.tokens])
            requests = requests[:1]  # it answers afterwards, too
            batches = engine.batches(requests, sampling)
        try:
            for answer in engine.generate(batches, sampling, reporter, Stop()):
                say([answer.request_id, answer.ids, answer.finished])
                if scenario in SIGNALS and not sent:
                    sent = True
                    for child in multiprocessing.active_children():
                        os.kill(int(child.pid or 0), SIGNALS[scenario])
        except ThinktuneError as error:
            say({"error": str(error), "code": int(error.exit_code)})
        engine.close()
        say({"children": len(multiprocessing.active_children())})


if __name__ == "__main__":
    main()

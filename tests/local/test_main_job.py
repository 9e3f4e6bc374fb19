"""The main job end to end in real processes: run, repeat, kill, interrupt, resume, take home."""

import csv
import json
import os
import signal
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from command import thinktune
from peft import PeftModel
from s3_server import BUCKET, S3Server
from tiny import seed_store
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from workshop import LONG, Workshop, artifact, children, losses, manifest, start

from thinktune.schema.manifest import Manifest
from thinktune.store import manifest_digest, open_store, read_manifest


@pytest.fixture(scope="module")
def judged(shop: Workshop, whole: dict[str, Manifest]) -> dict[str, bytes]:
    """The launcher is killed in the middle of the evaluation of `whole`, and started again.

    Gives the answers that were kept from the first attempt, by key.
    """
    process = start(shop, shop.store, "whole", {}, "runs/whole/evaluate/parts")
    stages = children(process)
    process.kill()
    process.wait(timeout=60)
    for _ in range(600):
        if not any(Path(f"/proc/{pid}").exists() for pid in stages):
            break
        time.sleep(0.1)
    else:
        raise AssertionError(f"a killed launcher left {stages} running")
    store = open_store(shop.store)
    kept = {info.key: store.get(info.key) for info in store.list("runs/whole/evaluate/parts")}
    assert read_manifest(store, "runs/whole/evaluate") is None
    ended = shop.run("--run", "whole", *LONG)
    assert ended.code == 0, ended.err
    assert "Final Answer:" in ended.out
    assert "report.html" in ended.out.splitlines()[-1]
    return kept


def test_an_evaluation_killed_half_way_asks_nothing_twice(
    shop: Workshop, judged: dict[str, bytes]
) -> None:
    store = open_store(shop.store)
    parts = {info.key: store.get(info.key) for info in store.list("runs/whole/evaluate/parts")}
    assert 0 < len(judged) < len(parts)
    assert {key: parts[key] for key in judged} == judged
    asked = [
        answer["request_id"] for part in parts.values() for answer in json.loads(part)["answers"]
    ]
    assert len(asked) == len(set(asked)) == 3 * 8 * 20  # 3 arms, 20 answers to 8 questions


def test_manifests_form_a_chain(
    shop: Workshop, whole: dict[str, Manifest], judged: dict[str, bytes]
) -> None:
    prep, train = whole["prep"], whole["train"]
    evaluate = manifest(shop.store, "whole", "evaluate")
    assert train.inputs == {"prep": manifest_digest(prep)}
    assert evaluate.inputs == {"prep": manifest_digest(prep), "train": manifest_digest(train)}
    assert prep.template_sha256 == train.template_sha256 == evaluate.template_sha256
    assert train.metrics["steps"] == 60
    assert train.metrics["last_loss"] < train.metrics["first_loss"]  # type: ignore[operator]
    assert any(f.name.startswith("tracking/") for f in train.files)
    assert {f.name for f in evaluate.files} == {
        *("report.html", "report.json", "report.md", "samples.jsonl")
    }
    assert "prompt.json" in {f.name for f in prep.files}
    assert {"base_format_rate", "tuned_accuracy", "accuracy_p"} <= set(evaluate.metrics)
    assert all(each.metrics["planned_s"] for each in (prep, train, evaluate))


def test_people_rate_what_a_run_answered(
    shop: Workshop, judged: dict[str, bytes], tmp_path: Path
) -> None:
    out, where = tmp_path / "sheets", ("--store", shop.store)
    kind = ("--format", "csv", "--reasoning")
    ended = thinktune("evaluate", "sheet", "whole", *kind, "--out", str(out), *where)
    assert ended.code == 0, ended.err
    assert "16 answers to 8 questions" in ended.out
    sheet = out / "whole-1.csv"
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(row["question"] and row["reference"] and row["answer"] for row in rows)
    with sheet.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(row | {"rating": "3,0"} for row in rows)
    read = ("evaluate", "sheet", "whole", "--read", str(sheet), "--keep", "--output", "json")
    ended = thinktune(*read, *where)
    assert ended.code == 0, ended.err
    report = json.loads(ended.out)
    assert {arm: found["mean"] for arm, found in report["arms"].items()} == {
        "base": 3.0, "tuned": 3.0,
    }  # fmt: skip
    page = tmp_path / "page.html"
    ended = thinktune("compare", "whole", "--html", str(page), *where)
    assert ended.code == 0, ended.err
    assert "Rating by people, from 1 to 5" in page.read_text(encoding="utf-8")


def test_a_finished_run_does_nothing(shop: Workshop, judged: dict[str, bytes]) -> None:
    before = sorted(info.key for info in open_store(shop.store).list("runs/whole"))
    ended = shop.run("--run", "whole", *LONG)
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if "done already" in line] == [
        "prep: done already",
        "train: done already",
        "evaluate: done already",
    ]
    assert sorted(info.key for info in open_store(shop.store).list("runs/whole")) == before


def test_stopped_and_killed_in_the_middle_of_training_it_resumes(
    shop: Workshop,
    whole: dict[str, Manifest],
    server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On S3: Ctrl-C, then SIGKILL, then to the end; equal to the run that nothing disturbed."""
    more = server.environment()
    for name, value in more.items():
        monkeypatch.setenv(name, value)
    store = f"s3://{BUCKET}/{tmp_path.name}"
    checkpoints = "runs/hurt/train/checkpoints"
    seed_store(store, tmp_path / "seed")

    process = start(shop, store, "hurt", more, checkpoints)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "stopped on request, step" in out
    assert "the same command goes on" in out
    assert "Traceback" not in out

    process = start(shop, store, "hurt", more, checkpoints)
    for child in children(process):
        os.kill(child, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 137, out
    assert "resumes after step" in out
    assert "train was killed by SIGKILL" in out
    assert "Traceback" not in out
    assert read_manifest(open_store(store), "runs/hurt/train") is None

    ended = shop.run("--run", "hurt", "--until", "train", *LONG, store=store, **more)
    assert ended.code == 0, ended.err
    assert "resumes after step" in ended.out
    hurt = artifact(store, "hurt", "train", tmp_path)
    untouched = artifact(shop.store, "whole", "train", tmp_path)
    weights = "adapter_model.safetensors"
    assert (hurt / weights).read_bytes() == (untouched / weights).read_bytes()
    assert losses(hurt) == losses(untouched)


def test_plain_transformers_and_peft_give_the_same_answers(
    shop: Workshop, judged: dict[str, bytes], tmp_path: Path
) -> None:
    prep = artifact(shop.store, "whole", "prep", tmp_path)
    adapter = artifact(shop.store, "whole", "train", tmp_path)
    evaluate = artifact(shop.store, "whole", "evaluate", tmp_path)
    names = {path.name for path in adapter.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors"} <= names
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        shop.model, dtype=torch.float32, quantization_config=config
    )
    model = PeftModel.from_pretrained(base, adapter).eval()
    tokenizer = Tokenizer.from_file(str(shop.model / "tokenizer.json"))
    questions = {q["id"]: q["prompt_ids"] for q in pq.read_table(prep / "test.parquet").to_pylist()}
    samples = [json.loads(line) for line in (evaluate / "samples.jsonl").read_text().splitlines()]
    tuned = {s["question_id"]: s["text"] for s in samples if s["arm"] == "tuned"}
    untuned = {s["question_id"]: s["text"] for s in samples if s["arm"] == "base"}
    assert tuned != untuned
    for question, text in tuned.items():
        ids = torch.tensor([questions[question]])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=2,
            pad_token_id=2,
        )
        new = out[0, ids.shape[1] :].tolist()
        new = new[: new.index(2)] if 2 in new else new
        assert tokenizer.decode(new, skip_special_tokens=False) == text


def test_a_damaged_artifact_is_refused(shop: Workshop, tmp_path: Path) -> None:
    assert shop.run("--run", "damaged", "--until", "prep").code == 0
    store = open_store(shop.store)
    key = next(i.key for i in store.list("runs/damaged/prep/attempts") if "train-" in i.key)
    path = store.local_path(key)
    assert path is not None
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    ended = shop.run("--run", "damaged")
    assert ended.code == 66
    assert ended.err.startswith("error: ")
    assert "Traceback" not in ended.err


def test_a_name_taken_by_another_recipe_is_refused(shop: Workshop) -> None:
    assert shop.run("--run", "taken", "--until", "prep").code == 0
    ended = shop.run("--run", "taken", "--until", "prep", "--set", "data.max_tokens=200")
    assert ended.code == 66
    assert "was made by another recipe" in ended.err

"""lm-evaluation-harness on a trained run, with a task file and its data on disk.

Skipped where the package `lm-eval` is not installed.
"""

import json
import math
from pathlib import Path

import pytest
import torch
from command import thinktune
from letters import letter_rows
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from workshop import Workshop, artifact

pytest.importorskip("lm_eval")
pytestmark = pytest.mark.timeout(600)

TASK = """\
task: letters_local
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
doc_to_target: answer_idx
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module")
def tasks(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    data = folder / "letters.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in letter_rows(12)))
    (folder / "letters.yaml").write_text(TASK.format(data=data))
    ended = shop.run("--run", "asked", "--until", "train")
    assert ended.code == 0, ended.err
    return folder


def shares_by_hand(shop: Workshop, folder: Path) -> list[float]:
    """Share of the questions whose right letter is the likeliest of the four, base and tuned."""
    tokenizer = AutoTokenizer.from_pretrained(shop.model)
    model = AutoModelForCausalLM.from_pretrained(shop.model, dtype=torch.float32)
    adapter = artifact(shop.store, "asked", "train", folder)
    tuned = PeftModel.from_pretrained(model, str(adapter)).eval()
    found = []
    for on in (False, True):
        right = 0
        for row in letter_rows(12):
            text = f"{row['question']}\nAnswer:"
            said = []
            for letter in "ABCD":
                prompt = tokenizer(text, add_special_tokens=False).input_ids
                whole = tokenizer(f"{text} {letter}", add_special_tokens=False).input_ids
                with torch.inference_mode():
                    if on:
                        logits = tuned(torch.tensor([whole])).logits[0]
                    else:
                        with tuned.disable_adapter():
                            logits = tuned(torch.tensor([whole])).logits[0]
                logs = torch.log_softmax(logits.float(), dim=-1)
                places = range(len(prompt), len(whole))
                said.append(sum(logs[n - 1, whole[n]].item() for n in places))
            right += "ABCD"[said.index(max(said))] == row["answer_idx"]
        found.append(right / 12)
    return found


def test_base_and_tuned_on_a_local_task(shop: Workshop, tasks: Path, tmp_path: Path) -> None:
    words = ("evaluate", "lm-eval", "asked", "--tasks", "letters_local")
    at = ("--include-path", str(tasks), "--store", shop.store, "--base", "16bit")
    told = thinktune(*words, *at, "--output", "json")
    assert told.code == 0, told.err
    found = json.loads(told.out)
    task = found["tasks"]["letters_local"]
    assert (task["documents"], task["kind"]) == (12, "multiple_choice")
    figure = task["figures"]["acc,none"]
    assert [figure["base"], figure["tuned"]] == pytest.approx(shares_by_hand(shop, tmp_path))
    assert math.isfinite(figure["base_stderr"])
    assert "do not compare" in found["note"]
    table = thinktune(*words, *at, "--limit", "4")
    assert "acc,none" in table.out
    assert "do not compare" in table.out


def test_what_is_not_there(shop: Workshop, tasks: Path) -> None:
    at = ("--include-path", str(tasks), "--store", shop.store)
    unknown = thinktune("evaluate", "lm-eval", "asked", "--tasks", "letter_local", *at)
    assert (unknown.code, "did you mean 'letters_local'" in unknown.err) == (64, True)
    at_no_folder = ("--include-path", "nosuch", "--store", shop.store)
    nowhere = thinktune("evaluate", "lm-eval", "asked", "--tasks", "letters_local", *at_no_folder)
    assert (nowhere.code, "there is no such folder" in nowhere.err) == (64, True)
    missing = thinktune("evaluate", "lm-eval", "nosuch", "--tasks", "letters_local", *at)
    assert (missing.code, "stage train of run nosuch" in missing.err) == (66, True)

"""The model card: what people must know of a published run, made from its manifests.

Called by `files`. Nothing private stands in it: no address of a store, no path, no name of a
machine, no row of data. Questions and answers of the evaluation stay in its report.
"""

from typing import Any

import yaml

from thinktune.schema.catalog import DatasetEntry
from thinktune.schema.lora_targets import target_names
from thinktune.schema.report import TUNED
from thinktune.schema.stages import PrepTask, TrainTask
from thinktune.tasks.publish.card_evaluation import evaluation
from thinktune.tasks.publish.source import Source
from thinktune.tasks.publish.usage import usage

HUB_LICENSES = (
    *("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "llama3", "llama3.1", "llama3.2", "llama3.3", "gemma", "openrail"),
)
"""Licenses that the hub knows by that name."""
MERGED_ARM = f"{TUNED}-merged"
PRECISIONS = {"nf4": "NF4, double quantization (QLoRA)", "16bit": "16 bits"}


def card(source: Source, *, merged: bool, name: str) -> str:
    """README.md of the export; `name`: what programs load it by."""
    sections = [
        f"# {source.run}",
        *([] if source.promoted else [_warning(source)]),
        _introduction(source, merged),
        usage(source, merged=merged, name=name),
        _base(source),
        _data(source),
        _training(source),
        evaluation(source),
        _limits(source, merged),
        _versions(source),
    ]
    front = yaml.safe_dump(_front(source, merged), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front(source: Source, merged: bool) -> dict[str, Any]:
    """What the hub reads of a card."""
    model = source.template.model
    known = model.license.lower() in HUB_LICENSES
    named = {"license": model.license.lower()} if known else {
        "license": "other", "license_name": model.license.lower().replace(" ", "-"),
    }  # fmt: skip
    dataset = source.prep_task.dataset if source.prep_task else None
    return {
        "base_model": model.repo,
        "base_model_relation": "finetune" if merged else "adapter",
        **named,
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-generation",
        **({"datasets": [dataset.repo]} if dataset and dataset.repo else {}),
        "tags": ["reasoning", *([] if merged else ["lora"])],
    }


def _warning(source: Source) -> str:
    fault = source.judged.removeprefix("not promoted: ")
    return f"> **Not promoted.** {fault[:1].upper()}{fault[1:]}."


def _introduction(source: Source, merged: bool) -> str:
    link = f"[{source.repo}](https://huggingface.co/{source.repo})"
    what = f"{link} with a LoRA adapter merged into it" if merged else f"A LoRA adapter for {link}"
    text = f"{what}. It reasons between `<think>` and `</think>` before it answers."
    if marker := source.template.final_answer:
        text += f" Its answers end in a line that begins with `{marker}`."
    return text


def _base(source: Source) -> str:
    model = source.template.model
    rows = [
        ("model", model.repo),
        ("revision", f"`{source.revision}`"),
        ("license", model.license),
        ("precision in training", PRECISIONS[source.base]),
    ]
    text = f"## Base model\n\n{_table(rows)}"
    if model.packaged is not None:
        text += (
            f"\n\nIts weights came from the Python package {model.packaged.package} "
            f"{model.packaged.version}, in which they are quantized: those on the hub differ a "
            "little, and so do answers with them."
        )
    return text


def _data(source: Source) -> str:
    task = source.prep_task
    rows = _dataset(task.dataset, source) if task else [("dataset", "not recorded")]
    for label, figure in (
        ("rows trained on", "training_rows"),
        ("rows held out for validation", "validation_rows"),
        ("rows held out for the evaluation", "test_rows"),
    ):
        count = source.prep.metrics.get(figure)
        if isinstance(count, int):
            rows.append((label, f"{count:,}"))
    return f"## Data\n\n{_table(rows + (_prompts(task) if task else []))}"


def _dataset(entry: DatasetEntry, source: Source) -> list[tuple[str, str]]:
    if entry.generator is not None:
        return [("dataset", f"{entry.generator}, generated"), ("license", entry.license)]
    if entry.repo is None:
        return [("dataset", "a file of its author's own, which is not published")]
    revision = source.prep.revisions.get("dataset", "").rpartition("@")[2]
    return [
        ("dataset", f"[{entry.repo}](https://huggingface.co/datasets/{entry.repo})"),
        ("revision", f"`{revision}`"),
        ("license", entry.license),
    ]


def _prompts(task: PrepTask) -> list[tuple[str, str]]:
    learned = "every answer of a conversation" if task.data.learn_turns == "every" else "one answer"
    return [
        ("learned of each row", learned),
        ("longest example", f"{task.data.max_tokens:,} tokens"),
    ]


def _training(source: Source) -> str:
    task, figures = source.train_task, source.train.metrics
    rows = _settings(task) if task else [("settings", "not recorded")]
    for label, name in (
        ("steps", "steps"),
        ("step of this adapter", "selected_step"),
        ("training loss, last step", "last_loss"),
        ("validation loss", "selected_validation_loss"),
        ("tokens", "tokens"),
    ):
        value = figures.get(name)
        if isinstance(value, int | float):
            rows.append((label, f"{value:,}" if isinstance(value, int) else f"{value:.4f}"))
    if source.train.init_from is not None:
        rows.append(("started from", "the adapter of another run"))
    return f"## Training\n\n{_table(rows)}"


def _settings(task: TrainTask) -> list[tuple[str, str]]:
    train = task.train
    scaled = "α/√r (rsLoRA)" if train.rslora else "α/r"
    epochs = "1 epoch" if train.epochs == 1 else f"{train.epochs} epochs"
    length = f"{train.max_steps:,} steps" if train.max_steps else epochs
    return [
        ("method", "LoRA, supervised fine-tuning"),
        ("rank, α", f"{train.rank}, {train.alpha:g}, scaled by {scaled}"),
        ("layers", ", ".join(target_names(task.model, train))),
        ("dropout", f"{train.dropout:g}"),
        ("loss on", "reasoning and answer" if train.loss_on == "completion" else "answer"),
        ("optimizer", train.optimizer),
        ("learning rate", f"{train.lr:g}, {train.schedule}, warmup {100 * train.warmup:g}%"),
        ("examples per step", f"{train.batch_size:,}"),
        ("planned length", length),
        ("seed", str(train.seed)),
    ]


def _limits(source: Source, merged: bool) -> str:
    found = [
        "The evaluation says what the model does on questions like those that it was trained on. "
        "It says little about others.",
        "Reasoning that reads well is no proof that an answer is right.",
        "The license of the base model holds for this model too, and that of the data may.",
        "A chat template tokenizes messages together with the control text around them. Take the "
        "control tokens out of text that you do not trust.",
    ]
    if source.base == "nf4":
        rounded = "they have been rounded to 4 bits and written out again, as training saw them"
        found.append(
            f"The weights are not those of the release with something added: {rounded}."
            if merged
            else "The adapter has learned on a base model of 4 bits. On one of 16 bits it answers "
            "differently."
        )
    if merged and source.report is not None and MERGED_ARM not in source.report.arms:
        found.insert(0, "The figures are those of the adapter beside its base model. Merged, the "
                        "model has not been judged.")  # fmt: skip
    if source.report is None:
        found.insert(0, "This model has not been evaluated.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in found)


def _versions(source: Source) -> str:
    named = ", ".join(f"{name} {version}" for name, version in source.train.versions.items())
    return f"## Made with\n\n{named or 'thinktune'}"


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])

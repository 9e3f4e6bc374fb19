"""The answers to benchmarks, judged by their own rule. Called by the stage.

Those of a dataset have been asked apart; those of groups are the held-out questions that have them.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tokenizers import Tokenizer

from thinktune.schema.benchmark import BenchmarkSpec
from thinktune.schema.stages import EvaluateTask
from thinktune.tasks.evaluate.inputs import Inputs
from thinktune.tasks.evaluate.report.benchmarks import Benchmark
from thinktune.tasks.evaluate.samples import Judged, Sample
from thinktune.tasks.evaluate.verdicts import Rules, judge_all, verifier_of
from thinktune.tasks.runtime.entry import Context


def judge_benchmarks(
    task: EvaluateTask,
    context: Context,
    inputs: Inputs,
    asked: Mapping[str | None, Sequence[Sample]],
    held_out: Sequence[Judged],
    tokenizer_file: Path,
) -> dict[str, Benchmark]:
    """All benchmarks of the recipe, in its order. `asked`: the answers to those of datasets;
    `held_out`: the judged answers to the run's own questions."""
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    found: dict[str, Benchmark] = {}
    for name, spec in task.evaluate.benchmarks.items():
        if spec.groups:
            found[name] = _of_groups(task, inputs, spec, held_out)
            continue
        rules = Rules(
            marker=task.final_answer,
            verifier=spec.verifier,
            count_tokens=lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids),
            stop=lambda: context.stop.check("evaluate"),
        )
        own = inputs.benchmarks[name]
        assert own.benchmark is not None
        context.reporter.say(f"judges {len(asked[name])} answers to benchmark {name}")
        found[name] = Benchmark(
            spec=spec,
            source=own.benchmark.revisions["dataset"],
            verifier=spec.verifier,
            questions=own.questions,
            judged=judge_all(asked[name], own.questions, rules),
            training_rows_alike=int(own.benchmark.metrics["training_rows_alike"] or 0),
        )
    return found


def _of_groups(
    task: EvaluateTask, inputs: Inputs, spec: BenchmarkSpec, held_out: Sequence[Judged]
) -> Benchmark:
    return Benchmark(
        spec=spec,
        source=f"held-out questions of {', '.join(spec.groups)}",
        verifier=verifier_of(task.evaluate.verifier, inputs.questions),
        questions=[asked for asked in inputs.questions if asked.group in spec.groups],
        judged=[each for each in held_out if each.group in spec.groups],
        training_rows_alike=None,
    )


def write_samples(benchmarks: Mapping[str, Benchmark], folder: Path) -> None:
    """`benchmark-<name>.jsonl` with every answer that was asked for apart, and its verdict."""
    for name, benchmark in benchmarks.items():
        if benchmark.spec.groups:
            continue
        with (folder / f"benchmark-{name}.jsonl").open("w", encoding="utf-8") as file:
            for each in benchmark.judged:
                verdict = {"extracted": each.extracted, "correct": each.correct}
                row = asdict(each.sample) | verdict
                file.write(json.dumps(row, ensure_ascii=False) + "\n")

"""lm-evaluation-harness on a run's adapter and on its base: `python -m
thinktune.tasks.evaluate.harness`.

Reads an `LmEvalRequest` on stdin and prints an `LmEvalReport`. Base and tuned are one model in
memory, the adapter off and on. Task files and their data are on this machine; nothing asks the hub.
"""

import contextlib
import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from thinktune.schema.errors import InputMissing, SpecInvalid, ThinktuneError, near_misses
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.harness import LmEvalFigure, LmEvalReport, LmEvalRequest, LmEvalTask
from thinktune.schema.keys import stage_prefix
from thinktune.schema.manifest import Manifest
from thinktune.store import Store, fetch, open_store
from thinktune.store.adapters import CONFIG_FILE
from thinktune.tasks.runtime.cache import fetch_repository
from thinktune.tasks.runtime.inputs import stage_manifest

NOTE = (
    "Multiple-choice tasks of lm-evaluation-harness compare the log-likelihoods of the options "
    "without any reasoning. They do not compare with the shares of right generated answers that an "
    "evaluation of thinktune reports."
)
INSTALL = "add it to the environment of thinktune[evaluate]: uv pip install 'lm-eval==0.4.13'"
"""It is in no lock and no image: 25 packages that nothing else needs."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
Results = Mapping[str, Any]


def evaluate(request: LmEvalRequest) -> LmEvalReport:
    """Asks both models. Raises InputMissing where the package or the run is not there, SpecInvalid
    for a task that is not among the files."""
    if find_spec("lm_eval") is None:
        fault = "lm-evaluation-harness is not installed"
        raise InputMissing("lm_eval", fault, INSTALL)
    os.environ.update(OFFLINE)
    manager = _task_manager(request)
    store = open_store(request.store)
    with tempfile.TemporaryDirectory(prefix="thinktune-lm-eval-") as folder:
        train = stage_manifest(store, request.run, "train")
        request = _with_base(request, train)
        weights, adapter, repo = _model_files(request, train, store, Path(folder))
        base, tuned = _ask(request, manager, weights, adapter)
    return _report(request, repo, base, tuned)


def _task_manager(request: LmEvalRequest) -> Any:
    from lm_eval.tasks import TaskManager

    if not Path(request.include_path).is_dir():
        place, fault = request.include_path, "there is no such folder"
        raise SpecInvalid(place, fault, "name the folder of the task files with --include-path")
    manager = TaskManager(include_path=request.include_path, include_defaults=False)
    for name in request.tasks:
        if name not in manager.all_tasks:
            fault = f"no task file has the name '{name}'"
            raise SpecInvalid(request.include_path, fault, near_misses(name, manager.all_tasks))
    return manager


def _with_base(request: LmEvalRequest, train: Manifest) -> LmEvalRequest:
    """The request with the precision of the training, where it names none."""
    trained = train.metrics.get("base")
    if request.base is None and trained not in ("nf4", "16bit"):
        fault = f"the manifest of run {request.run} does not say at which precision it was trained"
        raise SpecInvalid("--base", fault, "give --base nf4 or --base 16bit")
    return request.model_copy(update={"base": request.base or trained})


def _model_files(
    request: LmEvalRequest, train: Manifest, store: Store, folder: Path
) -> tuple[Path, Path, str]:
    """Folders of the base's weights and of the adapter, and the base's repository."""
    adapter = fetch(store, stage_prefix(request.run, "train"), train, folder / "adapter")
    config = json.loads((adapter / CONFIG_FILE).read_text(encoding="utf-8"))
    repo = str(config["base_model_name_or_path"])
    revision = train.revisions["model"]
    weights = fetch_repository(repo, revision, store, folder / "model", weights=True)
    return weights, adapter, repo


def _ask(
    request: LmEvalRequest, manager: Any, weights: Path, adapter: Path
) -> tuple[Results, Results]:
    """What lm-evaluation-harness says of base and tuned."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from thinktune.tasks.model.base import compute_dtype, load_base, local_device
    from thinktune.tasks.model.tuned import put_on, tokenizer_of

    device = local_device()
    dtype = compute_dtype("auto", device)
    assert request.base is not None, "it is that of the training"
    model = put_on(load_base(weights, request.base, dtype, device, attention="sdpa"), adapter)
    harness = HFLM(
        pretrained=model.get_base_model(),
        tokenizer=tokenizer_of(weights),
        batch_size=request.batch_size,
    )

    def asked() -> Results:
        found: Results = simple_evaluate(
            model=harness,
            tasks=list(request.tasks),
            task_manager=manager,
            limit=request.limit,
            log_samples=False,
        )
        return found

    with model.disable_adapter():
        base = asked()
    return base, asked()


def _report(request: LmEvalRequest, repo: str, base: Results, tuned: Results) -> LmEvalReport:
    from importlib.metadata import version

    assert request.base is not None, "it is that of the training"
    return LmEvalReport(
        run=request.run,
        model=repo,
        base=request.base,
        lm_eval=version("lm-eval"),
        tasks={
            name: LmEvalTask(
                documents=int(base["n-samples"][name]["effective"]),
                kind=str(base["configs"][name]["output_type"]),
                version=str(base["versions"].get(name, "")),
                figures=_figures(
                    base["results"][name],
                    tuned["results"][name],
                    base["higher_is_better"].get(name, {}),
                ),
            )
            for name in base["configs"]
        },
        note=NOTE,
    )


def _figures(base: Results, tuned: Results, better: Mapping[str, Any]) -> dict[str, LmEvalFigure]:
    """The metrics of one task. lm-evaluation-harness has `acc,none` beside `acc_stderr,none`."""
    found = {}
    for name in base:
        metric, comma, kind = name.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        error = f"{metric}_stderr,{kind}"
        found[name] = LmEvalFigure(
            base=_number(base.get(name)),
            base_stderr=_number(base.get(error)),
            tuned=_number(tuned.get(name)),
            tuned_stderr=_number(tuned.get(error)),
            higher_is_better=better.get(metric),
        )
    return found


def _number(value: Any) -> float | None:
    number = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if number else None


def main() -> int:
    """Answers one request; what the libraries print goes to stderr."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            report = evaluate(LmEvalRequest.model_validate_json(sys.stdin.read()))
    except ThinktuneError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - the one relay
        return int(error.exit_code)
    print(report.model_dump_json(indent=1))  # noqa: T201 - the answer
    return int(ExitCode.DONE)


if __name__ == "__main__":
    sys.exit(main())

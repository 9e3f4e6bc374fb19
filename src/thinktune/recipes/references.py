"""Reads the references that runs are set beside, and sets one beside a run. Pure but for the files.

The command line and `tools/reproduce.py` are the callers.
"""

from collections.abc import Mapping
from pathlib import Path

from thinktune.recipes.compose import jobs_folder
from thinktune.schema.closed import parse_yaml
from thinktune.schema.errors import SpecInvalid, near_misses
from thinktune.schema.manifest import MetricValue
from thinktune.schema.reference import ComparedFigure, ComparedReference, Reference
from thinktune.schema.report import Report


def reference_names(folder: Path | None = None) -> list[str]:
    """Names of the references, sorted."""
    return sorted(path.stem for path in _folder(folder).glob("*.yaml"))


def load_reference(name: str, folder: Path | None = None) -> Reference:
    """The reference of that name. Raises SpecInvalid."""
    known = reference_names(folder)
    if name not in known:
        raise SpecInvalid(f"reference '{name}'", "not known", near_misses(name, known))
    path = _folder(folder) / f"{name}.yaml"
    return Reference.parse(parse_yaml(path.read_text(encoding="utf-8"), str(path)), str(path))


def beside(
    name: str,
    reference: Reference,
    run: str,
    metrics: Mapping[str, MetricValue],
    report: Report | None,
) -> ComparedReference:
    """The table of a reference beside a run's. `metrics` are those of its evaluation's manifest;
    `report` is None where it cannot be read."""
    return ComparedReference(
        reference=name,
        run=run,
        figures=tuple(
            ComparedFigure(
                label=figure.label,
                unit=figure.unit,
                reference=(figure.base, figure.tuned),
                run=(metrics.get(f"base_{figure.metric}"), metrics.get(f"tuned_{figure.metric}")),
                p=metrics.get(f"{figure.metric}_p"),
                note=figure.note,
            )
            for figure in reference.figures
        ),
        differences=(*_found(reference, metrics, report), *reference.differences),
    )


def _found(
    reference: Reference, metrics: Mapping[str, MetricValue], report: Report | None
) -> list[str]:
    """What differs by what the run says of itself."""
    found = []
    asked = metrics.get("questions")
    if reference.questions is not None and asked != reference.questions:
        found.append(f"The run asked {asked} questions, the reference {reference.questions}.")
    if report is None:
        return found
    if report.model != reference.model:
        found.append(f"The run's model is {report.model}, the reference's {reference.model}.")
    tuned = report.arms["tuned"]
    drawn = report.sampling
    how = f"temperature {drawn.temperature:g}" if drawn.temperature else "greedy"
    found.append(
        f"The run's answers: {tuned.engine}, {tuned.precision}, {how}, up to "
        f"{drawn.max_new_tokens:,} tokens."
    )
    missing = [figure.label for figure in reference.figures
               if metrics.get(f"tuned_{figure.metric}") is None]  # fmt: skip
    if missing:
        found.append(f"The run has not measured: {', '.join(missing)}.")
    return found


def _folder(folder: Path | None) -> Path:
    return (folder or jobs_folder()) / "references"

"""What stages read of prep's artifact."""

import json
from pathlib import Path

import pytest

from thinktune.schema.errors import InputMissing
from thinktune.schema.exit_codes import ExitCode
from thinktune.schema.prompt import PromptFacts
from thinktune.store import commit, open_store
from thinktune.tasks.runtime.inputs import prompt_facts

FACTS = PromptFacts(stop_ids=(2, 7), template_sha256="a" * 64, opens_think=True)


def read(folder: Path, text: str | None) -> PromptFacts:
    """The facts of an artifact whose prompt.json holds that text."""
    output = folder / "output"
    output.mkdir()
    (output / "card.json").write_text("{}")
    if text is not None:
        (output / "prompt.json").write_text(text)
    store = open_store(f"file://{folder}/store")
    manifest = commit(
        store,
        "runs/r/prep",
        output,
        kind="prep",
        run="r",
        attempt="a",
        inputs={},
        task_sha256=None,
        metrics={"end_token": 2},  # where it once stood
        created="2026-01-01T00:00:00+00:00",
    )
    return prompt_facts(store, "r", manifest, folder / "here")


def test_the_facts_are_read(tmp_path: Path) -> None:
    assert read(tmp_path, FACTS.model_dump_json()) == FACTS


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "it has no prompt.json"),
        ("", "it is not JSON"),
        (json.dumps(FACTS.model_dump() | {"stop_ids": []}), "stop_ids"),
        (json.dumps(FACTS.model_dump() | {"stop_ids": [None]}), "stop_ids"),
        (json.dumps({"template_sha256": "a" * 64, "opens_think": True}), "'stop_ids' is missing"),
    ],
)
def test_without_them_nothing_goes_on(tmp_path: Path, text: str | None, fault: str) -> None:
    with pytest.raises(InputMissing, match=fault) as caught:
        read(tmp_path, text)
    assert caught.value.exit_code == ExitCode.INPUT_MISSING == 66
    assert "run prep again" in caught.value.remedy

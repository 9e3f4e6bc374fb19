"""Progress: lines, the ETA, and what stands in the store."""

from pathlib import Path

import pytest

from thinktune.schema.manifest import Progress
from thinktune.store import open_store
from thinktune.tasks.runtime.progress import Reporter, clock


def test_the_last_advance_is_printed_once_and_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(f"file://{tmp_path}")
    with Reporter(store, "r", "train", "a") as reporter:
        reporter.phase("train", 3, "steps", done=1)
        reporter.advance(loss=2.0)
        reporter.advance(loss=1.5)
        reporter.advance(0)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["train: 3/3 steps · loss 1.5"]
    stored = Progress.model_validate_json(store.get("runs/r/train/progress.json"))
    assert (stored.done, stored.of, stored.figures) == (3, 3, {"loss": 1.5})


def test_the_first_of_a_phase_says_nothing_about_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    reporter = Reporter(open_store(f"file://{tmp_path}"), "r", "train", "a", quiet=True)
    reporter.phase("train", 12, "steps")
    now[0] = 100.0  # the first one loaded something
    reporter.advance()
    assert reporter.eta_s() is None
    now[0] = 102.0
    reporter.advance()
    assert reporter.eta_s() == 20.0


def test_seconds_as_people_read_them() -> None:
    assert [clock(s) for s in (0, 75, 4000)] == ["0:00", "1:15", "1:06:40"]

"""What a replica serves of what it is told to, without an engine."""

import json
from pathlib import Path

import pytest

from thinktune.schema.errors import SpecInvalid
from thinktune.schema.serve import ServeTask
from thinktune.store import open_store
from thinktune.tasks.serve.adapters import Adapters


def adapters(folder: Path, *runs: str) -> Adapters:
    """Those of a server called shop that is told to serve these runs."""
    told = [{"run": run, "train_sha256": "0" * 64} for run in runs]
    file = folder / "served.json"
    file.write_text(json.dumps({"revision": 1, "runs": told}))
    store = f"file://{folder}/store"
    task = ServeTask(run="shop", store=store, server="shop", desired_file=str(file))
    return Adapters(task, open_store(store), folder / "runs")


@pytest.mark.parametrize("run", ["base", "shop"])
def test_a_run_whose_id_means_another_model_is_refused(tmp_path: Path, run: str) -> None:
    with pytest.raises(SpecInvalid, match=f"clients that ask for '{run}' mean another model"):
        adapters(tmp_path, run).begin()

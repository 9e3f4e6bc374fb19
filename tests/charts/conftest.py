"""A file of the user's own, for recipes that want one."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def own_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "audit.jsonl"
    path.write_text('{"question": "q", "answer": "a"}\n')
    return path

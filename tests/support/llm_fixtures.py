"""A language model's endpoint and a store for each test; one helper for processes to kill."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_server import LlmServer, llm_server
from llm_worker import Workers, workers

from thinktune.store import Store, open_store


@pytest.fixture
def endpoint() -> Iterator[LlmServer]:
    with llm_server() as running:
        yield running


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    return (tmp_path / "store").as_uri()


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture(scope="session")
def helper() -> Iterator[Workers]:
    with workers() as running:
        yield running

"""An endpoint and a store for each test, and one helper for processes to kill."""

from llm_fixtures import endpoint, helper, store, store_url

__all__ = ["endpoint", "helper", "store", "store_url"]

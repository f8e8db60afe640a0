"""Fixtures of the engine's tests."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"

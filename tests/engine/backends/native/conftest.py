"""Fixtures of the C++ encoder's tests."""

import pytest

from xtremely.engine.backends.native import encoder
from xtremely.engine.backends.native.library import library


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Nothing is compiled yet, nor tried; afterwards all is as it was."""
    monkeypatch.setenv("XTREMELY_CACHE", str(tmp_path / "cache"))
    library.cache_clear()
    encoder._try.cache_clear()
    yield tmp_path / "cache"
    library.cache_clear()
    encoder._try.cache_clear()

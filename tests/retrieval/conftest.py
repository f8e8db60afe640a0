"""Tests of retrieval run apart: FAISS checks little and ends its process where it should raise."""

from pathlib import Path

import apart


def pytest_runtest_protocol(item, nextitem):
    """What ends its process fails its own test and no other."""
    return apart.protocol(item, nextitem, Path(__file__).parent)

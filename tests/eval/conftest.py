"""Fixtures of the evaluation's tests."""

import io
import sys

import pytest
from report_pages import written

from xtremely.eval.cli import main


@pytest.fixture
def xtremely(capsys, monkeypatch):
    """Runs the command line in this process: arguments in; exit code, stdout, stderr out."""
    monkeypatch.setenv("COLUMNS", "400")

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
            sys.exit(0)
        streams = capsys.readouterr()
        return stop.value.code or 0, streams.out, streams.err

    return run


@pytest.fixture
def write(tmp_path):
    """Writes a file under the test's folder, gives its path."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def parquet(tmp_path):
    """Writes rows as a dataset repository on the hub keeps them: a folder a configuration."""

    def parquet(config, split, rows, features=None, root=tmp_path):
        from datasets import Dataset

        folder = root / config
        folder.mkdir(exist_ok=True)
        path = folder / f"{split}-00000-of-00001.parquet"
        Dataset.from_list(rows, features=features).to_parquet(str(path))
        return path

    return parquet


@pytest.fixture
def page(tmp_path):
    """Writes a report of records (and of what is missing), gives its page."""

    def page(records, missing=()):
        return written(tmp_path, records, missing)

    return page

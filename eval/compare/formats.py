"""The file formats of a comparison, by suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from xtremely.eval.compare import tables
from xtremely.eval.compare.comparison import Comparison
from xtremely.eval.compare.page import write_page

FORMATS: dict[str, Callable[[Path, Comparison], None]] = {
    ".html": write_page,
    ".md": tables.write_markdown,
    ".tex": tables.write_latex,
    ".csv": tables.write_csv,
    ".parquet": tables.write_parquet,
}

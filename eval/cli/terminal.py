"""Lines and tables on the terminal, printed by rich.

Names and paths come from outside, so nothing in them is treated as markup. Figures are never cut: a
table may be wider than the terminal, which then wraps its lines.
"""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from xtremely.eval.plain import plain


def console(stderr: bool = False) -> Console:
    """A console that prints text without interpreting it."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def note(message: str) -> None:
    """One line on standard error."""
    console(stderr=True).print(plain(message), soft_wrap=True)


def line(text: str, style: str | None = None) -> None:
    """One line on standard output, wrapped only by the terminal."""
    console().print(plain(text), style=style, soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """An empty table in the common style; ``figures`` adds columns of figures."""
    made = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name)
    return made


def figures(made: Table, *columns: str) -> None:
    """Add columns of figures to a table."""
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True)


def show(made: Table) -> None:
    """Print a table without cutting figures or words: text wraps first, then the table widens."""
    out, wide = console(), Console(width=100_000, markup=False, emoji=False)
    for column in made.columns:
        column.width = _widths(column)[0]
    spare = out.width - Measurement.get(wide, wide.options, made).maximum
    for column in made.columns:
        least, most = _widths(column)
        column.width = least + max(0, min(spare, most - least))
        spare -= column.width - least
    out.width = max(out.width, Measurement.get(wide, wide.options, made).maximum)
    out.print(made)


def _widths(column: Column) -> tuple[int, int]:
    """The least and the largest width of a column: figures never wrap, text does at spaces."""
    cells = [str(cell) for cell in (column.header, *column.cells)]
    most = max(map(cell_len, cells))
    words = [word for cell in cells for word in cell.split()]
    return (most if column.no_wrap else max(map(cell_len, words), default=0)), most

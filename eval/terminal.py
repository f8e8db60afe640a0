"""What goes to the terminal by way of rich.

Names and paths come from outside: nothing in them is markup. Figures are never cut: a table that
needs more room than the terminal has gets it, and the terminal folds the line.
"""

from __future__ import annotations

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from xtremely.eval.plain import plain


def console(stderr: bool = False) -> Console:
    """A console that shows text as it is."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def note(message: str) -> None:
    """One line on standard error."""
    console(stderr=True).print(plain(message), soft_wrap=True)


def line(text: str, style: str | None = None) -> None:
    """One line on standard output, folded by the terminal alone."""
    console().print(plain(text), style=style, soft_wrap=True)


def table(title: str, *columns: str) -> Table:
    """A table of our looks; add columns with figures by ``figures``."""
    made = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        made.add_column(name)
    return made


def figures(made: Table, *columns: str) -> None:
    """Add columns of figures to a table."""
    for name in columns:
        made.add_column(name, justify="right", no_wrap=True)


def show(made: Table) -> None:
    """Print a table, no figure cut and no word broken."""
    for column in made.columns:
        if column.no_wrap:
            cells = (column.header, *column.cells)
            column.min_width = max(cell_len(str(cell)) for cell in cells)
    wide, out = Console(width=100_000, markup=False, emoji=False), console()
    needed = Measurement.get(wide, wide.options, made).minimum
    out.width = max(out.width, needed)
    out.print(made)

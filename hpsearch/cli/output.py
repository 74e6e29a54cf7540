"""Consoles and tables for the commands' output. Imports neither torch nor Optuna."""

import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd


# Wider than any line in a pipe.
WIDEST = 100_000


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that prints text as it is: the user's names and values are not markup or emoji codes.

    In a pipe or a file, unlike on a terminal, no line is folded or cut, unless `$COLUMNS` sets a width.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = WIDEST
    return console


def plain_table(*columns: str) -> Table:
    """Return an empty table without lines, suitable for a terminal and for a file."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def frame_table(frame: "pd.DataFrame") -> Table:
    """Return a frame of texts and numbers, without its index, as a table no wider than the terminal."""
    table = plain_table(*map(str, frame.columns))
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    return table

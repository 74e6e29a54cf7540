"""`hpsearch status` and `hpsearch studies`."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from hpsearch.errors import UsageError
from hpsearch.study import list_studies, studies_folder


def show_studies() -> None:
    """Print the study files by name with the first line of what they say of themselves."""
    found = list_studies()
    if not found:
        raise UsageError(f"there are no study files in {studies_folder()}/: change folder or set HPSEARCH_STUDIES")
    table = plain_table("study", "what it asks")
    for name, doc in found.items():
        table.add_row(name, doc)
    Console(highlight=False).print(table)


def show_status(*, study: str | None, storage: str, runs: Path) -> None:
    """Print a line for every study in the storage, or one study with its best trials."""
    from hpsearch.results.tables import trials_frame
    from hpsearch.search.opening import open_to_read
    from hpsearch.search.owner import Owner
    from hpsearch.search.storage import Storage, shown

    console = Console(highlight=False)
    if study is None:
        studies = Storage(storage, Owner.this_process(), create=False, exclusive=False).get_all_studies()
        if not studies:
            raise UsageError(f"{shown(storage)} holds no studies yet: start one with hpsearch run")
        names = [found.study_name for found in studies]
    else:
        names = [study]
    states = ("complete", "pruned", "diverged", "failed", "running", "waiting")
    table = plain_table("study", *states, "best", "trial")
    for name in names:
        frame = trials_frame(open_to_read(storage, name, runs))
        counts = frame["state"].value_counts()
        complete = frame[frame["state"] == "complete"]
        best = complete["value"].astype(float)
        table.add_row(
            name,
            *(str(counts.get(state, 0)) for state in states),
            f"{best.max():.4f}" if len(best) else "-",
            str(best.idxmax()) if len(best) else "-",
        )
    console.print(table)
    if study is not None:
        _show_trials(console, storage, study, runs)


def _show_trials(console: Console, storage: str, study: str, runs: Path, most: int = 10) -> None:
    from hpsearch.errors import last_line
    from hpsearch.progress import short
    from hpsearch.results.tables import trials_frame
    from hpsearch.search.opening import open_to_read

    opened = open_to_read(storage, study, runs)
    frame = trials_frame(opened)
    params = [column for column in frame.columns if column.startswith("params.")]
    complete = frame[frame["state"] == "complete"].sort_values("value", ascending=False, kind="stable")
    if len(complete):
        table = plain_table("best trials", "value", "interval", "ended by", "seconds", "params")
        for number, row in complete.head(most).iterrows():
            given = {name.removeprefix("params."): row[name] for name in params if row[name] == row[name]}
            table.add_row(
                str(number),
                f"{row['value']:.4f}",
                f"{row['best_interval']:.0f}",
                str(row["reason"]),
                f"{row['seconds']:.1f}",
                " ".join(f"{name}={short(value)}" for name, value in given.items() if value is not None),
            )
        console.print()
        console.print(table)
        console.print(f"\nfiles in {opened.folder}/", soft_wrap=True)
    for number, row in frame[frame["state"] == "failed"].tail(3).iterrows():
        console.print(f"trial {number} failed: {last_line(row['error'])}", soft_wrap=True, markup=False)


def plain_table(*columns: str) -> Table:
    """Return an empty table without lines, fit for a terminal and for a file."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

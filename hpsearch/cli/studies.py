"""`hpsearch studies`. It does not import torch, which would take most of the time."""

from hpsearch.cli.output import make_console, plain_table
from hpsearch.errors import UsageError
from hpsearch.study_files import list_studies, studies_folder


def show_studies() -> None:
    """Print the study files' names with the first lines of their docstrings."""
    docs = list_studies()
    if not docs:
        raise UsageError(f"there are no study files in {studies_folder()}/: change folder or set HPSEARCH_STUDIES")
    table = plain_table("study", "description")
    for name, doc in docs.items():
        table.add_row(name, doc)
    make_console().print(table)

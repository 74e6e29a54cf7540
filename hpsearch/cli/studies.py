"""`hpsearch studies`. It does not import torch, which would take longer than all else."""

from hpsearch.cli.output import make_console, plain_table
from hpsearch.errors import UsageError
from hpsearch.study_files import list_studies, studies_folder


def show_studies() -> None:
    """Print the study files by name with the first line of what they say of themselves."""
    found = list_studies()
    if not found:
        raise UsageError(f"there are no study files in {studies_folder()}/: change folder or set HPSEARCH_STUDIES")
    table = plain_table("study", "what it asks")
    for name, doc in found.items():
        table.add_row(name, doc)
    make_console().print(table)

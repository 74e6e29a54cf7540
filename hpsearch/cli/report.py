"""`hpsearch report`."""

from pathlib import Path

import optuna

from hpsearch.cli.arguments import as_typed, output_folder, set_data_folder
from hpsearch.cli.output import make_console
from hpsearch.results.report import write_report
from hpsearch.results.results import open_results
from hpsearch.search.folders import folder_name


def report_study(*, study: str, name: str | None, storage: str, runs: Path, data: Path | None, out: Path | None) -> int:
    """Write a study's report; return the exit code: 1 if one of the study's own figures failed."""
    console = make_console(stderr=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    set_data_folder(data)
    results = open_results(study, name=name, storage=storage, runs=runs)
    folder = output_folder(out or Path("reports") / folder_name(results.stored.name))
    failures = write_report(results, folder, as_typed())
    for failure in failures:
        console.print(f"hpsearch: {failure}", style="yellow", soft_wrap=True)
    print(f"Written     {folder}/summary.md, trials.csv, history.csv, plots/", flush=True)
    return 1 if failures else 0

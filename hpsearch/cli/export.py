"""`hpsearch export`."""

import shlex
from pathlib import Path

import optuna

from hpsearch.cli.arguments import output_folder
from hpsearch.cli.output import make_console
from hpsearch.results.configurations import best_configurations, file_name, shown_path, write_configuration
from hpsearch.results.results import open_results
from hpsearch.study_files import studies_folder


def export_best(*, study: str, name: str | None, top: int, storage: str, runs: Path, out: Path) -> None:
    """Write the best configurations of a study as JSON files."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = open_results(study, name=name, storage=storage, runs=runs)
    console = make_console(stderr=True)
    found = best_configurations(results, top, lambda why: console.print(f"hpsearch: {why}", soft_wrap=True))
    if results.stored.other_text(results.study_file):
        console.print(
            f"hpsearch: {results.study_file.path.name} was changed since trials of {results.stored.name} were run; its "
            f"space is the same, and what else was changed is exported as it is now",
            soft_wrap=True,
        )
    folder = output_folder(out)
    paths = [folder / file_name(configuration.study, rank) for rank, configuration in enumerate(found, start=1)]
    folder.mkdir(parents=True, exist_ok=True)
    for path, configuration in zip(paths, found, strict=True):
        write_configuration(path, configuration)
        print(f"{path}  trial {configuration.trial}, validation accuracy {configuration.value:.4f}")
    if len(found) < top:
        console.print(
            f"hpsearch: the study has only {len(found)} different complete configuration{'s' * (len(found) != 1)}",
            soft_wrap=True,
        )
    file = results.study_file.path
    # Only a file in the studies folder is found again by its name.
    named = [] if file.parent == studies_folder().resolve() else ["--study", shown_path(file)]
    print(f"Next        {shlex.join(['hpsearch', 'retrain', *map(str, paths), *named])}", flush=True)

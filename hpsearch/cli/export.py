"""`hpsearch export`."""

import shlex
from pathlib import Path

import optuna

from hpsearch.cli.arguments import output_folder
from hpsearch.cli.output import make_console
from hpsearch.results.configurations import best_configurations, file_name, relative_path, write_configuration
from hpsearch.results.results import open_results
from hpsearch.study_files import studies_folder
from hpsearch.text import plural


def export_best(
    *, study: str, name: str | None, top: int, where: str | None, storage: str, runs: Path, out: Path
) -> None:
    """Write the best configurations of a study as JSON files."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = open_results(study, name=name, storage=storage, runs=runs)
    console = make_console(stderr=True)
    configurations = best_configurations(
        results, top, lambda why: console.print(f"hpsearch: {why}", soft_wrap=True), where
    )
    if results.stored.other_text(results.study_file):
        console.print(
            f"hpsearch: {results.study_file.path.name} has changed since trials of {results.stored.name} were run; its "
            f"space is the same, and other changes are exported as they are now",
            soft_wrap=True,
        )
    folder = output_folder(out)
    paths = [
        folder / file_name(configuration.study, rank) for rank, configuration in enumerate(configurations, start=1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    measure = results.study.measure
    for path, configuration in zip(paths, configurations, strict=True):
        write_configuration(path, configuration)
        print(f"{path}  trial {configuration.trial}, {measure.label} {measure.format(configuration.value)}")
    if (count := len(configurations)) < top:
        console.print(
            f"hpsearch: the study has only {plural(count, 'different complete configuration')}"
            + (f" with {where}" if where else ""),
            soft_wrap=True,
        )
    file = results.study_file.path
    # retrain finds only a file in the studies folder by its name.
    named = [] if file.parent == studies_folder().resolve() else ["--study", relative_path(file)]
    print(f"Next        {shlex.join(['hpsearch', 'retrain', *map(str, paths), *named])}", flush=True)

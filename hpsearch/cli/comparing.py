"""`hpsearch compare`."""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import optuna
import pandas as pd
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.checkpoint import write_atomically
from hpsearch.cli.arguments import as_typed, check_device, default_workers, output_folder, set_data_folder
from hpsearch.cli.output import frame_table, make_console
from hpsearch.datasets import Dataset, length
from hpsearch.errors import HpsearchError, last_line
from hpsearch.results import compare, markdown
from hpsearch.results.figures import write_figure
from hpsearch.search.comparison import Pair, budget_of, make_pairs, trained_already
from hpsearch.search.folders import folder_name
from hpsearch.search.opening import OpenStudy, open_to_read
from hpsearch.search.pairs import Watcher, make_job, train_pairs
from hpsearch.search.pruners import make_pruner, most_intervals, rung_plan
from hpsearch.search.storage import check_url
from hpsearch.search.supervisor import End
from hpsearch.study import StudyFile, load_study, users_code
from hpsearch.text import duration


def compare_strategies(
    *,
    study: str,
    strategies: str,
    repeats: int,
    epoch_budget: int,
    name: str | None,
    storage: str,
    runs: Path,
    data: Path | None,
    workers: int | None,
    seed: int | None,
    device: str,
    out: Path | None,
) -> int:
    """Train every strategy under every seed, write the comparison; return the exit code.

    Raises HpsearchError; bad input is found before anything is created.
    """
    console = make_console(stderr=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    set_data_folder(data)
    check_url(storage, create=True)
    began = time.monotonic()
    study_file = load_study(study)
    definition = study_file.study
    first_seed = definition.seed if seed is None else seed
    name = name or study_file.name
    pairs = make_pairs(strategies, definition, name=name, repeats=repeats, seed=first_seed)
    budget = budget_of(definition, epoch_budget)
    device = check_device(device)
    with users_code(study_file.path):
        dataset = definition.load_data()
        load_seconds = time.monotonic() - began
        intervals = most_intervals(definition, length(dataset.train))
    for pair in pairs:
        make_pruner(pair.pruner, intervals)
    folder = output_folder(out or Path("reports") / folder_name(name))
    before = trained_already(pairs, storage, study_file, dataset, runs, budget)
    if dataset.note:
        console.print(f"hpsearch: the data are {dataset.note}", style="yellow", soft_wrap=True)
    for plan in dict.fromkeys(rung_plan(pair.pruner, intervals) for pair in pairs):
        if plan is not None:
            console.print(f"hpsearch: {plan}", style="yellow", soft_wrap=True)
    left = [pair for pair in pairs if before[pair] < budget]
    with _watcher(console, name, before, budget) as watcher:
        workers = min(workers or default_workers("cpu"), max(len(left), 1))
        job = make_job(
            study_file,
            dataset,
            storage=storage,
            runs=runs,
            budget=budget,
            device=device,
            workers=workers,
            load_seconds=load_seconds,
        )
        finished = train_pairs(left, job, watcher)
    missing = {pair.repeat for pair in pairs} - watcher.whole_repeats()
    compared = [pair for pair in pairs if pair.repeat not in missing]
    if compared:
        table, said = write_comparison(
            folder,
            study_file,
            dataset,
            compared,
            storage=storage,
            runs=runs,
            command=as_typed(),
            epochs=epoch_budget,
            missing=len(missing),
        )
        stdout = make_console()
        stdout.print(frame_table(table))
        stdout.print(f"\n{said}\n", soft_wrap=not stdout.is_terminal)
        print(f"Written     {folder}/compare.md, .csv and .png, compare_repeats.csv, compare_curves.csv", flush=True)
    if not finished:
        console.print(f"hpsearch: interrupted; everything is saved: {as_typed()}", soft_wrap=True)
        return 130
    if watcher.failures:
        raise HpsearchError(
            f"{len(watcher.failures)} of {len(pairs)} pairs failed; the same command goes on with them, one without "
            f"their strategy compares the rest. The first one is {watcher.failures[0]}"
        )
    if watcher.trained_here == 0:
        console.print("hpsearch: nothing was left to train: every pair has its epochs", soft_wrap=True)
    return 0


def write_comparison(
    folder: Path,
    study_file: StudyFile,
    dataset: Dataset,
    pairs: list[Pair],
    *,
    storage: str,
    runs: Path,
    command: str,
    epochs: int,
    missing: int = 0,
) -> tuple[pd.DataFrame, str]:
    """Write the comparison's files; return a table and a paragraph for a terminal.

    `missing` repeats are not done yet.
    """
    definition = study_file.study
    opened = {pair: open_to_read(storage, pair.name, runs) for pair in pairs}
    interval = definition.interval
    assert isinstance(interval, int)
    curve = compare.epochs_frame(opened, interval)
    repeats = compare.repeats_frame(opened, curve, epochs)
    table = compare.strategies_frame(repeats)
    default = definition.sampler + (f"+{definition.pruner}" if definition.pruner != "none" else "")
    said = compare.conclusion(repeats, table, budget=epochs, default=default, examples=length(dataset.validation))
    if missing:
        done = int(table["repeats"].max())
        said = f"**Not finished**: {done} of {done + missing} seeds are compared here. {said}"
    changed = [pair.name for pair, study in opened.items() if study.other_text(study_file)]
    if changed:
        said += (
            f" **Caution**: {study_file.path.name} was changed since some of this was trained "
            f"({_some(changed)}): if the change is more than words, --name starts a comparison of its own."
        )
    shown = compare.shown_table(table)
    seeds = markdown.count(int(table["repeats"].max()), "seed")
    title = f"{study_file.name}: {epochs:,} epochs for each strategy, {seeds}"
    folder.mkdir(parents=True, exist_ok=True)
    write_figure(compare.plot_curves(curve, table, epochs, title), folder / "compare.png")
    write_atomically(folder / "compare.csv", table.to_csv(index=False).encode())
    write_atomically(folder / "compare_repeats.csv", repeats.to_csv(index=False).encode())
    write_atomically(folder / "compare_curves.csv", compare.improvements(curve).to_csv(index=False).encode())
    sizes = f"{length(dataset.train):,} training and {length(dataset.validation):,} validation examples"
    page = f"""# {study_file.name}: strategies compared

{said}

{markdown.table(shown)}

Figures are means over {seeds}, ± the standard deviation (rank: ± the standard error). *Best validation accuracy* is
that of every epoch trained, those of trials that were pruned or not finished included; {compare.of_complete(table)}
*Rank* is among the strategies under the same seed, by best validation accuracy, ties averaged. *Area under curve* is
the mean over the {epochs:,} epochs of the best accuracy so far. *Epochs to 0.5 %* is the median over all seeds of the
epochs until the best so far came within 0.5 % of the best of all ({curve["accuracy"].max():.4f}), where more than half
of them got there, and how many did. *Complete*, *pruned* (those whose loss was not finite any more included) and
*failed* are trials; the one that was running when the epochs were used up is none of these.

![Best validation accuracy so far against epochs trained, by strategy](compare.png)

Bands are the mean ± one standard error over the seeds. The curves are in [compare_curves.csv](compare_curves.csv).

| | |
| --- | --- |
| command | `{command}` |
| data | {sizes}{"; " + dataset.note if dataset.note else ""} |
{_where(opened.values())}
"""
    write_atomically(folder / "compare.md", page.encode())
    return compare.short_table(table), said


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _where(studies: Iterable[OpenStudy]) -> str:
    """Return the table's rows on where the pairs were trained."""
    runs = [run for study in studies for run in study.runs()]
    machines = dict.fromkeys(
        f"{run['machine']}; {markdown.count(run['workers'], 'pair')} at a time, on {run['device']}" for run in runs
    )
    versions = dict.fromkeys(run["versions"] for run in runs)
    rows = (("machine", machines), ("versions", versions))
    return "\n".join(f"| {name} | {'; or '.join(found) or 'not recorded'} |" for name, found in rows)


def _watcher(console: Console, name: str, before: dict[Pair, int], budget: int) -> "Lines":
    return LiveSummary(console, name, before, budget) if console.is_terminal else Lines(console, name, before, budget)


class Lines(Watcher):
    """One line per finished pair, and the messages."""

    def __init__(self, console: Console, name: str, before: dict[Pair, int], budget: int) -> None:
        self.console = console
        self.name = name
        self.budget = budget
        self.finished = {pair for pair, intervals in before.items() if intervals >= budget}
        self.known = sum(before.values())
        self.running: dict[Pair, int] = {}
        self.best: dict[Pair, float] = {}
        self.before = before
        self.trained_here = 0
        self.failures: list[str] = []
        self.began = time.monotonic()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def pair_started(self, pair: Pair) -> None:
        """Note a pair."""
        self.running[pair] = self.before[pair]

    def pair_reported(self, pair: Pair, accuracy: float) -> None:
        """Note a pair's interval."""
        self.running[pair] += 1
        self.trained_here += 1
        self.best[pair] = max(accuracy, self.best.get(pair, 0.0))

    def pair_ended(self, pair: Pair, end: End, intervals: int, best: float) -> None:
        """Print a finished pair's line."""
        self.running.pop(pair, None)
        if end == "done":
            self.finished.add(pair)
            early = "" if intervals >= self.budget else ", its grid is finished"
            self.line(f"{pair.name}  {intervals} intervals{early}  best {best:.4f}  ({self._progress()})")

    def pair_failed(self, pair: Pair, error: str) -> None:
        """Print a failed pair's line."""
        self.running.pop(pair, None)
        self.failures.append(f"{pair.name}: {error.strip()}")
        self.line(f"{pair.name}  failed: {last_line(error)}")

    def whole_repeats(self) -> set[int]:
        """Return the repeats in which every pair is finished."""
        return {pair.repeat for pair in self.finished} - {pair.repeat for pair in self.before.keys() - self.finished}

    def _progress(self) -> str:
        return f"{len(self.finished)}/{len(self.before)}"

    def message(self, text: str) -> None:
        """Print a message."""
        self.console.print(Text(f"hpsearch: {text}"), soft_wrap=True, style="yellow")

    def tick(self) -> None:
        """Do nothing: lines need no refresh."""

    def line(self, text: str) -> None:
        """Print a line."""
        self.console.print(Text(text), soft_wrap=True)


class LiveSummary(Lines):
    """The same lines, with the running pairs and a summary below them."""

    def __init__(self, console: Console, name: str, before: dict[Pair, int], budget: int) -> None:
        super().__init__(console, name, before, budget)
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "LiveSummary":
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def tick(self) -> None:
        """Redraw."""
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(width=16)
        table.add_column(no_wrap=True)
        for pair, done in self.running.items():
            best = f"{self.best[pair]:.4f}" if pair in self.best else ""
            bar = ProgressBar(total=self.budget, completed=done)
            table.add_row(Text(pair.name), bar, Text(f"{done:>4}/{self.budget} {best}"))
        self.live.update(Group(table, Text(self.summary(), style="bold")), refresh=True)

    def summary(self) -> str:
        """Return pairs, intervals and time left in one line."""
        total = len(self.before) * self.budget
        done = self.known + self.trained_here
        text = f"{self.name}: {self._progress()} pairs, {done:,} of {total:,} intervals"
        if self.trained_here:
            seconds = (time.monotonic() - self.began) / self.trained_here * (total - done)
            text += f", {duration(seconds)} left"
        return text

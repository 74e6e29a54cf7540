"""A comparison's page, tables and curves, as files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from hpsearch.baseline import Baseline
from hpsearch.checkpoint import write_atomically
from hpsearch.datasets import Dataset, length
from hpsearch.measure import Measure
from hpsearch.results import markdown
from hpsearch.results.comparison import (
    conclusion,
    epochs_frame,
    improvements,
    of_complete,
    page_table,
    plot_curves,
    repeats_frame,
    strategies_frame,
)
from hpsearch.results.figures import write_figure
from hpsearch.search.comparison import Comparison, Pair
from hpsearch.search.stored_study import StoredStudy, open_to_read
from hpsearch.search.strategy import Strategy
from hpsearch.study import StudyFile
from hpsearch.text import plural


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A comparison's frames (see `hpsearch.results.comparison`) and the conclusion from them."""

    curve: pd.DataFrame
    repeats: pd.DataFrame
    strategies: pd.DataFrame
    conclusion: str
    measure: Measure
    studies: Sequence[StoredStudy]

    @property
    def seeds(self) -> str:
        """How many seeds were compared."""
        return plural(int(self.strategies["repeats"].max()), "seed")


def read_comparison(
    comparison: Comparison, data: Dataset, pairs: Sequence[Pair], *, epochs: int, missing: int = 0
) -> Compared:
    """Read what the `pairs` trained, `epochs` each; `missing` repeats are not finished yet."""
    study_file = comparison.study_file
    definition = study_file.study
    stored = {pair: open_to_read(comparison.storage, pair.name, comparison.runs) for pair in pairs}
    assert isinstance(definition.interval, int)
    measure = definition.measure
    curve = epochs_frame(stored, definition.interval, measure)
    repeats = repeats_frame(stored, curve, epochs, measure)
    strategies = strategies_frame(repeats, measure)
    default = str(Strategy.of(definition.sampler, definition.pruner))
    examples = length(data.validation)
    text = conclusion(repeats, strategies, budget=epochs, default=default, examples=examples, measure=measure)
    if missing:
        done = int(strategies["repeats"].max())
        text = f"**Not finished**: {done} of {done + missing} seeds are compared here. {text}"
    baseline = _baseline(stored.values())
    best = measure.best(curve["value"])
    if baseline is not None and best is not None and baseline.beats(best):
        text += f" **Caution**: the best of all is no better than {baseline}."
    changed = [pair.name for pair, study in stored.items() if study.other_text(study_file)]
    if changed:
        text += (
            f" **Caution**: {study_file.path.name} was changed since some of this was trained "
            f"({_some(changed)}): if more than wording has changed, start a new comparison with --name."
        )
    return Compared(
        curve=curve,
        repeats=repeats,
        strategies=strategies,
        conclusion=text,
        measure=measure,
        studies=list(stored.values()),
    )


def write_comparison(
    folder: Path, compared: Compared, study_file: StudyFile, data: Dataset, *, epochs: int, command: str
) -> None:
    """Write the page `compare.md`, its figure and its tables into `folder`."""
    title = f"{study_file.name}: {epochs:,} epochs for each strategy, {compared.seeds}"
    folder.mkdir(parents=True, exist_ok=True)
    measure, strategies = compared.measure, compared.strategies
    write_figure(plot_curves(compared.curve, strategies, epochs, title, measure), folder / "compare.png")
    write_atomically(folder / "compare.csv", compared.strategies.to_csv(index=False).encode())
    write_atomically(folder / "compare_repeats.csv", compared.repeats.to_csv(index=False).encode())
    curves = improvements(compared.curve).rename(columns={"value": measure.column})
    write_atomically(folder / "compare_curves.csv", curves.to_csv(index=False).encode())
    write_atomically(folder / "compare.md", _page(compared, study_file, data, epochs, command).encode())


def _page(compared: Compared, study_file: StudyFile, data: Dataset, epochs: int, command: str) -> str:
    sizes = f"{length(data.train):,} training and {length(data.validation):,} validation examples"
    measure = compared.measure
    best = measure.best(compared.curve["value"])
    near = "-" if best is None else measure.format(best)
    return f"""# {study_file.name}: strategies compared

{compared.conclusion}

{markdown.table(page_table(compared.strategies, measure))}

Figures are means over {compared.seeds}, ± the standard deviation (rank: ± the standard error). *Best
{measure.label}* is the best over every epoch trained, including those of trials that were pruned or not finished;
{of_complete(compared.strategies, measure)}
*Rank* is among the strategies under the same seed, by best {measure.label}, ties averaged. *Area under curve* is
the mean over the {epochs:,} epochs of the best {measure.name} so far. *Epochs to 0.5 %* is the median over all seeds of
the epochs until the best so far came within 0.5 % of the best of all ({near}), if more than half of them did, and how
many did. *Complete*, *pruned* (including those that diverged) and *failed* count trials; the trial that was
running when the epochs were used up is in none of them.

![Best {measure.label} so far against epochs trained, by strategy](compare.png)

Bands are the mean ± one standard error over the seeds. The curves are in [compare_curves.csv](compare_curves.csv).

| | |
| --- | --- |
| command | `{command}` |
| data | {sizes}{"; " + data.note if data.note else ""} |
{_where(compared.studies)}
{_baseline_row(compared.studies)}"""


def _baseline(studies: Iterable[StoredStudy]) -> Baseline | None:
    """Return the baseline, which is the same for all pairs."""
    return next((found for study in studies if (found := study.baseline()) is not None), None)


def _baseline_row(studies: Iterable[StoredStudy]) -> str:
    baseline = _baseline(studies)
    return "" if baseline is None else f"| baseline | {markdown.cell(str(baseline))} |\n"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _where(studies: Iterable[StoredStudy]) -> str:
    """Return the table's rows on where the pairs were trained."""
    runs = [run for study in studies for run in study.runs()]
    machines = dict.fromkeys(
        f"{run['machine']}; {plural(run['workers'], 'pair')} at a time, on {run['device']}" for run in runs
    )
    versions = dict.fromkeys(run["versions"] for run in runs)
    rows = (("machine", machines), ("versions", versions))
    return "\n".join(f"| {name} | {'; or '.join(texts) or 'not recorded'} |" for name, texts in rows)

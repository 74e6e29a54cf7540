"""A study's report: summary.md, trials.csv, history.csv and the plots, the study's own figures first."""

import ast
import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
from matplotlib.figure import Figure

from hpsearch.checkpoint import write_atomically
from hpsearch.errors import UsageError, last_line
from hpsearch.results import markdown, report_plots
from hpsearch.results.figures import write_figure
from hpsearch.results.results import Results
from hpsearch.results.tables import best_frame, distributions
from hpsearch.results.tradeoff import differ_in_size, front_table, plot_tradeoff
from hpsearch.search.study_attrs import FINGERPRINT, NOTE
from hpsearch.study import locate
from hpsearch.text import plural

# PED-ANOVA compares the best tenth of the complete trials with all of them, and needs five in that tenth.
FEW_TRIALS = 50

ENDINGS = {
    "budget": "trained to the last epoch",
    "patience": "stopped: no further improvement",
    "target": "stopped: target reached",
    "pruned": "pruned: worse than others at the same point",
    "diverged": "stopped: loss no longer finite",
    "infeasible": "turned away: a requirement not met",
    "failed": "failed",
    "complete": "complete, by another tool",
    "unfinished": "unfinished",
}


def write_report(results: Results, folder: Path, command: str) -> list[str]:
    """Write the report into `folder`; return a line for each of the study's own figures that could not be made.

    Raises UsageError if the study has no trials.
    """
    trials, history = results.trials, results.history
    if trials.empty:
        raise UsageError(
            f"study {results.stored.name} has no trials yet: hpsearch run --study {results.study_file.name}"
        )
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    errors = trials["error"].map(lambda error: last_line(error) if isinstance(error, str) else None)
    write_atomically(folder / "trials.csv", trials.assign(error=errors).to_csv().encode())
    write_atomically(folder / "history.csv", history.to_csv(index=False).encode())
    importances = importances_of(results)
    figures, failures = _own_figures(results)
    figures |= _plots(results, importances)
    for name, (figure, _) in figures.items():
        write_figure(figure, folder / "plots" / f"{name}.png")
    for old in (folder / "plots").glob("*.png"):
        if old.stem not in figures:
            old.unlink()
    captions = {name: caption for name, (_, caption) in figures.items()}
    write_atomically(folder / "summary.md", _page(results, importances, captions, command).encode())
    return failures


def importances_of(results: Results) -> dict[str, float]:
    """Return the importances of the parameters by PED-ANOVA (arXiv 2304.10255, 2601.20800), the largest first.

    Empty if they cannot be computed: with fewer than two complete trials, or if all have the same value.
    """
    complete = results.trials[results.trials["state"] == "complete"]
    if complete["value"].nunique() < 2:
        return {}
    try:
        with warnings.catch_warnings():
            # PED-ANOVA warns if trials are few; so does the page.
            warnings.simplefilter("ignore")
            return optuna.importance.get_param_importances(results.stored.optuna_study())
    # What Optuna raises for data it cannot use is not documented, and varies.
    except Exception:
        return {}


def endings_frame(trials: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return one row per way a trial can end: trials, intervals trained, and their share of all."""
    ending = trials["reason"].fillna("unfinished")
    intervals = history.groupby("number").size().reindex(trials.index, fill_value=0)
    frame = pd.DataFrame({"trials": ending.groupby(ending).size(), "intervals": intervals.groupby(ending).sum()})
    frame = frame.reindex(sorted(frame.index, key=_rank))
    frame["share"] = frame["intervals"] / max(int(frame["intervals"].sum()), 1)
    return frame


def _rank(reason: str) -> int:
    return list(ENDINGS).index(reason) if reason in ENDINGS else len(ENDINGS)


def _own_figures(results: Results) -> tuple[dict[str, tuple[Figure, str]], list[str]]:
    figures, failures = {}, []
    for name, function in results.study.figures.items():
        try:
            figures[name] = (_own_figure(results, name, function), inspect.getdoc(function) or "")
        except Exception as error:
            failures.append(f"figure {name}: {locate(error, results.study_file.path)}")
    return figures, failures


def _own_figure(results: Results, name: str, function: Callable[[Results], Any]) -> Figure:
    if not re.fullmatch(r"[\w.-]+", name):
        raise UsageError(f"the key {name!r} becomes a file's name: use letters, digits, - and _")
    figure = function(results)
    if not isinstance(figure, Figure):
        raise UsageError(f"it must return a matplotlib Figure, got {type(figure).__name__}")
    return figure


def _plots(results: Results, importances: dict[str, float]) -> dict[str, tuple[Figure, str]]:
    # Another tool's values may be infinite, which no axis can show.
    trials = results.trials[results.trials["best_value"].astype(float).abs() != float("inf")]
    history = results.history[
        results.history[f"validation_{results.measure.column}"].astype(float).abs() != float("inf")
    ]
    if trials.empty:
        return {}
    space = distributions(results.stored)
    plots = {
        "optimisation": (
            report_plots.plot_optimisation(trials, results.measure),
            f"Each trial's best {results.measure.label} by trial number; a pruned trial's is the best it had reached.",
        )
    }
    if len(history):
        best = None if (trials["state"] != "complete").all() else results.best
        plots["learning_curves"] = (
            report_plots.plot_learning_curves(trials, history, best, results.study.unit, results.measure),
            f"The {results.measure.label} during training, one line per trial; a cross marks where a trial was pruned. "
            f"On the right, the better end enlarged.",
        )
    if importances:
        plots["importances"] = (
            report_plots.plot_importances(importances, _caution(results.trials)),
            "How much each parameter accounts for the difference between the best trials and all (PED-ANOVA).",
        )
    if (trials["state"].isin(["complete", "pruned"]) & trials["best_value"].notna()).any() and space:
        plots["parallel"] = (
            report_plots.plot_parallel(trials, space, results.measure),
            "Complete trials across the parameters, coloured by rank; the best is black. Pruned trials, at the best "
            "value they had reached, are dashed. A line runs below the axis of a parameter that it does not have.",
        )
        plots["slices"] = (
            report_plots.plot_slices(trials, space, results.measure),
            "Trials by parameter; later ones are darker. Crosses are pruned trials, at the best they had reached.",
        )
    if differ_in_size(trials):
        plots["tradeoff"] = (
            plot_tradeoff(trials, results.measure),
            "Complete trials by size and by time of a forward pass; no other trial is both better and smaller, or "
            "faster, than those of the Pareto front.",
        )
    if trials["ended"].notna().any():
        plots["timeline"] = (
            report_plots.plot_timeline(trials),
            "When each trial was trained, from its start to its end, interruptions included.",
        )
    return plots


def _page(results: Results, importances: dict[str, float], captions: dict[str, str], command: str) -> str:
    stored, trials, unit = results.stored, results.trials, results.study.unit
    parts = [
        f"# {stored.name}",
        ast.get_docstring(ast.parse(results.study_file.path.read_text(encoding="utf-8"))) or "",
        _overview(results),
        f"## Best trials\n\n{_best(results, unit)}",
        *([f"## Quality against size\n\n{_tradeoff(results)}"] if differ_in_size(trials) else []),
        f"## Parameter importances\n\n{_importance_table(results, importances)}",
        f"## How the training was spent\n\n{_spent(trials, results.history, unit)}",
        "## Plots",
        *(f"![{name.replace('_', ' ')}](plots/{name}.png)\n\n{caption}" for name, caption in captions.items()),
        f"Written by `{command}`. All trials are in [trials.csv](trials.csv), all {unit}s in "
        f"[history.csv](history.csv).",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _overview(results: Results) -> str:
    attrs = results.stored.user_attrs()
    fingerprint = attrs.get(FINGERPRINT, {})
    data = fingerprint.get("data", {})
    counts = results.trials["state"].value_counts()
    states = ", ".join(f"{count:,} {state}" for state, count in counts.items())
    rows = [
        ("trials", states),
        (
            "epochs",
            f"{results.study.epochs} per trial (unless its recipe sets them), evaluated every {_every(results)}",
        ),
        ("measure", ", also ".join([str(results.measure), *(str(measure.name) for measure in results.study.also)])),
        ("early stopping", _rules(results)),
        ("data", "; ".join(f"{name}: {text}" for name, text in data.items() if name != "classes")),
        *((("note", note),) if (note := attrs.get(NOTE)) else ()),
        *((("baseline", str(baseline)),) if (baseline := results.stored.baseline()) else ()),
        ("seed", str(results.stored.seed)),
        *_how_it_was_run(results),
        *((f"`{name}`", text) for name, text in fingerprint.get("space", {}).items()),
    ]
    return markdown.table(pd.DataFrame(rows, columns=["", " "]))


def _every(results: Results) -> str:
    interval = results.study.interval
    return "epoch" if interval == 1 else f"{interval} epochs" if isinstance(interval, int) else str(interval)


def _how_it_was_run(results: Results) -> list[tuple[str, str]]:
    """Return the page's rows on the runs of the study, as far as they are recorded."""
    runs = results.stored.runs()
    rows = [(name, list(dict.fromkeys(str(run[name]) for run in runs))) for name in ("sampler", "pruner")]
    places = (f"{run['machine']}; {plural(run['workers'], 'worker')}, on {run['device']}" for run in runs)
    rows += [("machine", list(dict.fromkeys(places))), ("versions", list(dict.fromkeys(r["versions"] for r in runs)))]
    return [(name, "; then ".join(texts)) for name, texts in rows if texts]


def _rules(results: Results) -> str:
    rules = results.study.early_stopping
    parts = []
    if rules.target is not None:
        parts.append(f"at {results.measure.name} {rules.target:g} on training and validation data")
    if rules.patience is not None:
        by = f" by more than {rules.min_improvement:.2%} of the best" if rules.min_improvement else ""
        parts.append(f"after {plural(rules.patience, results.study.unit)} without improvement{by}")
    return ", or ".join(parts) or "none"


def _best(results: Results, unit: str) -> str:
    best, baseline = best_frame(results.trials, results.measure), results.stored.baseline()
    if best.empty:
        return "No trial is complete yet."
    measure = results.measure
    table = pd.DataFrame({"trial": best.index, measure.label: [measure.format(value) for value in best["value"]]})
    table[unit] = ["-" if pd.isna(interval) else f"{interval:.0f}" for interval in best["best_interval"]]
    table["ended by"] = best["reason"].to_numpy()
    table["seconds"] = ["-" if pd.isna(seconds) else f"{seconds:.1f}" for seconds in best["seconds"]]
    for column in best.columns:
        if column.startswith("params."):
            table[column.removeprefix("params.")] = [markdown.cell(value) for value in best[column]]
    page = markdown.table(table)
    if baseline is not None and baseline.beats(float(best["value"].iloc[0])):
        page += f"\n\n**Caution:** the best of them is no better than {baseline}."
    return page


def _tradeoff(results: Results) -> str:
    measure = results.measure
    table = markdown.table(front_table(results.trials, measure))
    return (
        f"{table}\n\nNo other complete trial has both a better {measure.label} than these and fewer parameters (size) "
        f"or less time for one example (speed). Times are medians on the trial's device, measured while other trials "
        f"were trained. `hpsearch export --where 'parameters < 50000'` takes the best of the smaller."
    )


def _importance_table(results: Results, importances: dict[str, float]) -> str:
    complete = results.trials[results.trials["state"] == "complete"]
    if not importances:
        return f"Importances cannot be computed from {plural(len(complete), 'complete trial')}."
    frame = pd.DataFrame(
        {
            "parameter": list(importances),
            "importance": [f"{importance:.3f}" for importance in importances.values()],
            "complete trials with it": [int(complete[f"params.{name}"].notna().sum()) for name in importances],
        }
    )
    text = markdown.table(frame)
    if len(complete) < FEW_TRIALS:
        text += (
            f"\n\n**Caution:** {len(complete)} complete trials are few: PED-ANOVA compares the best tenth of them with "
            f"all. Below about {FEW_TRIALS}, importances vary much from one run to the next, especially those of "
            f"parameters that only some trials have."
        )
    return text


def _caution(trials: pd.DataFrame) -> str | None:
    """Return what the picture of the importances says if they are those of few trials."""
    count = int((trials["state"] == "complete").sum())
    if count >= FEW_TRIALS:
        return None
    return f"From {plural(count, 'complete trial')} only: below about {FEW_TRIALS}, these vary much from run to run"


def _spent(trials: pd.DataFrame, history: pd.DataFrame, unit: str) -> str:
    frame = endings_frame(trials, history)
    total = int(frame["intervals"].sum())
    table = pd.DataFrame(
        {
            "trials ended": [ENDINGS.get(str(reason), str(reason)) for reason in frame.index],
            "trials": frame["trials"].to_numpy(),
            f"{unit}s": frame["intervals"].to_numpy(),
            "share": [f"{share:.0%}" for share in frame["share"]],
        }
    )
    # Of all intervals, those of unfinished trials included.
    seconds = history["seconds"].sum() if "seconds" in history else trials["seconds"].astype(float).sum()
    return f"{plural(total, unit)}, {seconds:,.0f} s of training.\n\n{markdown.table(table)}"

"""Quality against size: the trials than which no other is at once smaller, or faster, and better."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from hpsearch.measure import Measure
from hpsearch.results.figures import COLOURS, make_figure

# The columns of the trials' frame that a model's use costs, and their names on axes and in tables.
COSTS = {
    "parameters": "Parameters",
    "multiply_adds": "Multiply-adds for one example",
    "latency_ms": "Milliseconds for one example",
    "batch_latency_ms": "Milliseconds for a batch",
}
# Those of a figure.
SHOWN = ("parameters", "latency_ms")


def differ_in_size(trials: pd.DataFrame) -> bool:
    """Whether some complete trials have larger models than others, as far as known."""
    complete = trials[trials["state"] == "complete"]
    return bool((complete[["parameters", "multiply_adds"]].nunique() > 1).any())


def pareto_front(costs: pd.Series, values: pd.Series, *, maximize: bool) -> pd.Index:
    """Return the index of the Pareto front, by increasing cost: no other entry is as cheap and better, or cheaper.

    Of equal entries, the first is in it. Missing and infinite entries are left out.
    """
    frame = pd.DataFrame({"cost": costs.astype(float), "value": values.astype(float) * (-1 if maximize else 1)})
    known = frame[np.isfinite(frame["cost"]) & np.isfinite(frame["value"])]
    ordered = known.sort_values(["cost", "value"], kind="stable")
    better = ordered["value"] < ordered["value"].cummin().shift(fill_value=np.inf)
    front: pd.Index = ordered[better].index
    return front


def fronts(trials: pd.DataFrame, measure: Measure) -> dict[str, pd.Index]:
    """Return the Pareto front of the complete trials by each cost, by its column; those without entries are empty."""
    complete = trials[trials["state"] == "complete"]
    return {cost: pareto_front(complete[cost], complete["value"], maximize=measure.maximize) for cost in COSTS}


def front_table(trials: pd.DataFrame, measure: Measure) -> pd.DataFrame:
    """Return the trials of the Pareto front by parameters and of that by latency, by increasing size, as texts.

    `front` says which of the two a trial is in.
    """
    found = fronts(trials, measure)
    numbers = found[SHOWN[0]].union(found[SHOWN[1]])
    rows = trials.loc[numbers].sort_values([SHOWN[0], SHOWN[1]], kind="stable")
    table = pd.DataFrame({"trial": rows.index, measure.label: [measure.format(value) for value in rows["value"]]})
    for cost, heading in COSTS.items():
        known = rows[cost].astype(float)
        table[heading.lower()] = ["-" if np.isnan(entry) else _cost(cost, entry) for entry in known]
    table["front"] = [_names(number, found) for number in rows.index]
    return table


def _cost(column: str, entry: float) -> str:
    return f"{entry:.3g}" if column.endswith("_ms") else f"{entry:,.0f}"


def _names(number: object, found: dict[str, pd.Index]) -> str:
    return " and ".join(name for cost, name in zip(SHOWN, ("size", "speed"), strict=True) if number in found[cost])


def plot_tradeoff(trials: pd.DataFrame, measure: Measure) -> Figure:
    """Return the value of the complete trials against parameters and latency, with the Pareto front of each."""
    complete = trials[trials["state"] == "complete"]
    found = fronts(trials, measure)
    shown = [cost for cost in SHOWN if len(found[cost])]
    figure, (row,) = make_figure(1, len(shown), height=4.2, sharey=True)
    values = complete["value"].astype(float)
    for axes, cost in zip(row, shown, strict=True):
        costs = complete[cost].astype(float)
        axes.scatter(costs, values, s=22, color=COLOURS[0], alpha=0.6, linewidths=0, label="complete")
        front = found[cost]
        # From one trial of the front to the next, a model of that size has the quality of the one before.
        axes.step(costs[front], values[front], where="post", color=COLOURS[1], linewidth=1.5)
        axes.scatter(costs[front], values[front], s=40, marker="D", color=COLOURS[1], label="Pareto front", zorder=3)
        for number in _labelled(front):
            place = (costs[number], values[number])
            axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 5), fontsize=8)
        axes.set(xlabel=COSTS[cost], xscale="log" if costs.min() > 0 and costs.max() > 10 * costs.min() else "linear")
        axes.grid(alpha=0.25)
    row[0].set_ylabel(measure.label.capitalize())
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def _labelled(front: Sequence[int] | pd.Index) -> Sequence[int]:
    """Return the trials of a front that get their number: all of them, unless they are too many to read."""
    return list(front) if len(front) <= 12 else [front[0], front[-1]]

"""What early stopping would have saved and cost, from replaying its rules over trials that were trained to the end.

This is exact, not an estimate: a rule only ends a trial early, so the recorded history up to that point is that of the
stopped trial.
"""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from hpsearch.errors import UsageError
from hpsearch.measure import ACCURACY, Measure
from hpsearch.results.figures import COLOURS, make_figure
from hpsearch.results.results import Results
from hpsearch.stopping import EarlyStopping, Stopper


def stopping_interval(history: pd.DataFrame, rule: EarlyStopping, measure: Measure = ACCURACY) -> int:
    """Return the number of intervals after which `rule` ends one trial; all of them if it never does.

    `history` is one trial's rows in order, with the measure of training and validation examples, such as
    `train_accuracy` and `validation_accuracy`.
    """
    stopper = Stopper(rule, measure)
    values = zip(history[f"train_{measure.column}"], history[f"validation_{measure.column}"], strict=True)
    for interval, (train, validation) in enumerate(values, start=1):
        if stopper.update(train, validation) is not None:
            return interval
    return len(history)


def replay_rules(results: Results, rules: Mapping[str, EarlyStopping]) -> pd.DataFrame:
    """Return one row per rule (by its label) on the study's trials, each of which was trained to its last interval.

    `stopped`: fraction of trials it ends early. `saved`: fraction of all trained intervals that it saves. `cost_mean`:
    how much worse a trial's best value of the validation measure is on average; `cost_most`: at most. `cost_best`: how
    much worse the study's best value is, which is the cost to a search.
    Raises UsageError if a trial was itself stopped early, or no trial reached its end.
    """
    trials = results.trials
    ended = trials["reason"].isin(["target", "patience"]) | ((trials["state"] == "pruned") & ~_diverged(trials))
    if ended.any():
        raise UsageError(
            f"trial {trials.index[ended][0]} was itself stopped early ({trials['reason'][ended].iloc[0]}): rules are "
            f"replayed over trials trained to the end, with EarlyStopping() and --pruner none"
        )
    complete = results.history[results.history["number"].isin(trials.index[trials["reason"] == "budget"])]
    if complete.empty:
        raise UsageError(f"study {results.stored.name} has no trial that was trained to its end yet")
    rows = {label: _replay(complete, rule, results.measure) for label, rule in rules.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("rule")


def _diverged(trials: pd.DataFrame) -> "pd.Series[bool]":
    return trials["reason"] == "diverged"


def _replay(complete: pd.DataFrame, rule: EarlyStopping, measure: Measure) -> dict[str, float]:
    full, cut, intervals, stopped = [], [], [], []
    for _, history in complete.groupby("number"):
        # The higher the better.
        scores = measure.sign * history[f"validation_{measure.column}"]
        interval = stopping_interval(history, rule, measure)
        full.append(scores.max())
        cut.append(scores.iloc[:interval].max())
        intervals.append(interval)
        stopped.append(interval < len(history))
    costs = [before - after for before, after in zip(full, cut, strict=True)]
    return {
        "stopped": sum(stopped) / len(stopped),
        "saved": 1 - sum(intervals) / len(complete),
        "cost_mean": sum(costs) / len(costs),
        "cost_most": max(costs),
        "cost_best": max(full) - max(cut),
    }


def plot_rules(table: pd.DataFrame, measure: Measure = ACCURACY) -> Figure:
    """Draw what `replay_rules` returned: each rule's share of epochs saved, and its cost as a plot and in numbers.

    Costs are in percentage points where the measure is from 0 to 1.
    """
    scale, points = (100, ", points") if measure.is_share else (1, "")
    figure, axes = make_figure(1, 3, height=1.4 + 0.34 * len(table), sharey=True, width_ratios=(4, 5, 4))
    saved, lost, numbers = axes.flat
    places = range(len(table))
    bars = saved.barh(places, 100 * table["saved"], color=COLOURS[0])
    saved.bar_label(bars, fmt="%.0f %%", padding=3)
    saved.set(xlabel="epochs saved, %", xlim=(0, 119))
    saved.set_yticks(places, list(table.index))
    saved.invert_yaxis()
    for index, (column, (marker, colour, label)) in enumerate(_COSTS.items()):
        lost.scatter(scale * table[column], places, marker=marker, color=colour, s=60, label=label, zorder=3)
        numbers.text(
            index,
            1.01,
            label.replace(" ", "\n"),
            transform=numbers.get_xaxis_transform(),
            ha="center",
            fontsize="small",
        )
        for place, cost in zip(places, table[column], strict=True):
            numbers.text(
                index, place, f"{scale * cost:.2f}" if measure.is_share else f"{cost:.3g}", ha="center", va="center"
            )
    lost.set(xlabel=f"{measure.label} lost{points}")
    lost.legend(fontsize="small")
    numbers.set(xlim=(-0.6, len(_COSTS) - 0.4), xlabel="the same in numbers")
    numbers.set_xticks([])
    numbers.spines[:].set_visible(False)
    numbers.tick_params(left=False)
    for ax in (saved, lost):
        ax.grid(alpha=0.3, axis="x")
    return figure


_COSTS = {
    "cost_mean": ("o", COLOURS[1], "mean trial"),
    "cost_most": ("|", COLOURS[6], "worst trial"),
    "cost_best": ("D", COLOURS[2], "study's best"),
}

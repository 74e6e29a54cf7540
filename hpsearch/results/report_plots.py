"""The plots of a study's report, each a function of the study's frames.

Colours and sizes are those of `hpsearch.results.figures`. Complete trials are blue, pruned ones orange, the best black.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution

from hpsearch.measure import Measure
from hpsearch.results.figures import COLOURS, make_figure
from hpsearch.results.tables import CHOSEN_NONE

COLOUR = {
    "complete": COLOURS[0],
    "pruned": COLOURS[1],
    "diverged": COLOURS[3],
    "failed": COLOURS[6],
    "infeasible": COLOURS[6],
    "running": COLOURS[2],
    "waiting": COLOURS[2],
}
# The maximum number of curves that remain legible; of more, the best and an even sample of the rest are drawn.
MOST_CURVES = 400


def plot_optimisation(trials: pd.DataFrame, measure: Measure) -> Figure:
    """Return each trial's best value by its number, and the best of the complete ones so far."""
    figure, ((axes,),) = make_figure()
    best = trials["best_value"].astype(float)
    size = _size(len(trials))
    edge = _edge(best[trials["state"].isin(["complete", "pruned"])], measure)
    beyond = measure.sign * best < measure.sign * edge
    for state, marker in (("complete", "o"), ("pruned", "x"), ("diverged", "+")):
        values = best[(trials["state"] == state) & best.notna() & ~beyond]
        line = {"linewidths": 1} if marker in "x+" else {"linewidths": 0}
        axes.scatter(values.index, values, s=size, marker=marker, color=COLOUR[state], alpha=0.75, label=state, **line)
    if beyond.any():
        numbers = best.index[beyond]
        label = f"{_worse(measure)} {measure.format(edge)} ({len(numbers)})"
        marker = "v" if measure.maximize else "^"
        axes.scatter(numbers, [edge] * len(numbers), s=size, marker=marker, color="grey", label=label, clip_on=False)
    complete = best[trials["state"] == "complete"]
    if len(complete):
        so_far = complete.cummax() if measure.maximize else complete.cummin()
        axes.step(complete.index, so_far, where="post", color="black", linewidth=1.5, label="best complete so far")
    axes.set(xlabel="Trial", ylabel=f"Best {measure.label}", xlim=(-0.5, trials.index.max() + 0.5))
    _set_worse_end(axes, edge, measure)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)
    _legend(figure, axes)
    return figure


def plot_learning_curves(
    trials: pd.DataFrame, history: pd.DataFrame, best: int | None, unit: str, measure: Measure
) -> Figure:
    """Return the validation measure by interval, one line per trial; a cross marks where a trial was pruned.

    The right plot enlarges the better end, where the complete trials end. `unit` is what an interval is called.
    """
    figure, ((whole, enlarged),) = make_figure(1, 2, height=4.2)
    numbers = _sample(trials, measure)
    drawn = history[history["number"].isin(numbers)]
    for axes in (whole, enlarged):
        _learning_curves(axes, drawn, trials["state"], unit, measure)
    handles = [Line2D([], [], color=COLOUR["complete"], label="complete")]
    handles.append(Line2D([], [], color=COLOUR["pruned"], marker="x", label="pruned"))
    if best is not None:
        line = history[history["number"] == best]
        for axes in (whole, enlarged):
            axes.plot(line["interval"], line[_column(measure)], color="black", linewidth=2)
        handles.append(Line2D([], [], color="black", linewidth=2, label=f"best, trial {best}"))
    whole.set(title="Full range")
    if measure.is_share:
        whole.set(ylim=(0, 1.02))
    else:
        whole.autoscale_view(scalex=False)
    ends = trials.loc[trials["state"] == "complete", "best_value"].astype(float)
    scores = measure.sign * history[_column(measure)]
    top, low = float(scores.max()), measure.sign * _edge(ends, measure)
    # At least a hundredth, or a single example would look like a large difference.
    bottom = min(low, top - _least(top, measure))
    limits = sorted((measure.sign * bottom, measure.sign * (top + 0.05 * (top - bottom))))
    enlarged.set(title="Enlarged: where complete trials end", ylim=tuple(limits))
    if len(numbers) < len(trials):
        figure.suptitle(_sampled(len(numbers), len(trials)), fontsize=9)
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _learning_curves(axes: Axes, history: pd.DataFrame, state: pd.Series, unit: str, measure: Measure) -> None:
    count = history["number"].nunique()
    alpha = float(np.clip(15 / max(count, 1), 0.15, 0.7))
    for name, rows in history.groupby(history["number"].map(state)):
        lines = [group[["interval", _column(measure)]].to_numpy() for _, group in rows.groupby("number")]
        axes.add_collection(LineCollection(lines, colors=COLOUR[str(name)], alpha=alpha, linewidths=1.0))
    ends = history[history["number"].map(state) == "pruned"].groupby("number").last()
    values = ends[_column(measure)]
    axes.scatter(ends["interval"], values, marker="x", s=_size(len(ends)), color=COLOUR["pruned"], linewidths=1)
    longest = max(2, int(history["interval"].max()))
    axes.set(xlabel=unit.capitalize(), ylabel=_label(measure), xlim=(1 - 0.015 * longest, 1.015 * longest))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(alpha=0.25)


def plot_importances(importances: Mapping[str, float], caution: str | None = None) -> Figure:
    """Return the parameters' importances as bars, the most important one on top, and a caution above them."""
    figure, ((axes,),) = make_figure(height=0.9 + 0.35 * max(len(importances), 2))
    names = list(importances)[::-1]
    values = [importances[name] for name in names]
    bars = axes.barh(names, values, color=COLOURS[0], height=0.65)
    axes.bar_label(bars, [f"{value:.2f}" for value in values], padding=4)
    axes.set(xlabel="Importance (PED-ANOVA, share of 1)", xlim=(0, max(values) * 1.12))
    axes.spines[["top", "right"]].set_visible(False)
    if caution is not None:
        axes.set_title(caution, fontsize=9, color=COLOURS[1])
    return figure


def plot_parallel(trials: pd.DataFrame, space: Mapping[str, BaseDistribution], measure: Measure) -> Figure:
    """Return parallel coordinates of complete and pruned trials, the pruned ones thin and dashed, behind the others.

    A line runs below the axes of parameters that its trial does not have.
    """
    figure, ((axes,),) = make_figure(height=4.4)
    every = _compared(trials)
    shown = every.loc[list(_sample(every, measure))].sort_values("best_value", ascending=measure.maximize)
    values = shown["best_value"].astype(float)
    columns = [_positions(shown[f"params.{name}"], distribution) for name, distribution in space.items()]
    points = np.column_stack([*columns, _scaled(values.to_numpy())])
    pruned = (shown["state"] == "pruned").to_numpy()
    lines, others = (
        [np.column_stack([range(points.shape[1]), row]) for row in points[chosen]] for chosen in (~pruned, pruned)
    )
    alpha = float(np.clip(60 / max(len(lines), 1), 0.15, 0.8))
    thin: Any = {"linewidths": 0.7, "linestyles": "dashed", "colors": COLOUR["pruned"]}
    axes.add_collection(LineCollection(others, alpha=float(np.clip(30 / max(len(others), 1), 0.1, 0.6)), **thin))
    # Ranks, not values: a few bad trials would take most of the colours.
    order = LineCollection(lines, array=np.linspace(0, 1, len(lines)), cmap="viridis_r", alpha=alpha, linewidths=1.2)
    axes.add_collection(order)
    if lines:
        axes.plot(range(points.shape[1]), lines[-1][:, 1], color="black", linewidth=2.2)
    if others:
        label = f"pruned ({len(others)})"
        handle = Line2D([], [], color=COLOUR["pruned"], linewidth=0.7, linestyle="dashed", label=label)
        figure.legend(handles=[handle], loc="outside lower center", frameon=False)
    axes.vlines(range(len(space) + 1), 0, 1, color="grey", linewidth=0.8)
    for position, (name, distribution) in enumerate(space.items()):
        for height, text in _ticks(distribution):
            axes.text(position + 0.03, height, text, fontsize=8, va="center", bbox=_BEHIND)
        axes.text(position, 1.06, name, ha="center", fontsize=9)
    for height, value in ((0.0, values.min()), (1.0, values.max())):
        axes.text(len(space) + 0.03, height, measure.format(value), fontsize=8, va="center", bbox=_BEHIND)
    axes.text(len(space), 1.06, measure.name, ha="center", fontsize=9)
    if (points == _ABSENT).any():
        axes.text(-0.15, _ABSENT, "not used", fontsize=8, va="center", ha="right")
    axes.set(xlim=(-0.2, len(space) + 0.35), ylim=(_ABSENT - 0.05, 1.1))
    axes.axis("off")
    bar = figure.colorbar(order, ax=axes, fraction=0.03, pad=0.01, ticks=[0, 1])
    assert bar.solids is not None
    bar.solids.set_alpha(1)
    bar.ax.set_yticklabels(["worst", "best"])
    if len(shown) < len(every):
        figure.suptitle(_sampled(len(shown), len(every)), fontsize=9)
    return figure


def plot_slices(trials: pd.DataFrame, space: Mapping[str, BaseDistribution], measure: Measure) -> Figure:
    """Return the best value of complete and pruned trials against each parameter; later trials are darker."""
    shown = _compared(trials)
    columns = 3
    rows = -(-len(space) // columns)
    figure, grid = make_figure(rows, columns, height=2.6, sharey=True)
    values = shown["best_value"].astype(float)
    complete = values[shown["state"] == "complete"]
    # Pruned trials are worse by their fewer intervals; they must not take most of the axis.
    edge = _edge(values if complete.empty else complete, measure)
    beyond = measure.sign * values < measure.sign * edge
    dots: Any = None
    handles: dict[str, Any] = {}
    for axes, (name, distribution) in zip(grid.flat, space.items(), strict=False):
        _set_slice_axis(axes, distribution)
        for state, marker, width in (("pruned", "x", 1.0), ("complete", "o", 0.0)):
            chosen = shown.loc[shown["state"] == state, f"params.{name}"].dropna()
            if chosen.empty:
                continue
            handles[state] = dots = axes.scatter(
                _slice_positions(chosen, distribution),
                values.where(~beyond, edge).loc[chosen.index],
                c=chosen.index,
                cmap="viridis_r",
                vmin=0,
                vmax=max(len(trials) - 1, 1),
                s=_size(len(shown)),
                marker=marker,
                alpha=0.8,
                linewidths=width,
                label=state,
            )
        axes.set(xlabel=name)
        _set_worse_end(axes, edge, measure)
        axes.grid(alpha=0.25)
    for axes in grid.flat[len(space) :]:
        axes.axis("off")
    for axes in grid[:, 0]:
        axes.set_ylabel(_label(measure))
    if beyond.any():
        where = (
            f"{_worse(measure)} {measure.format(edge)} are drawn at the {'lower' if measure.maximize else 'upper'} edge"
        )
        figure.suptitle(f"{beyond.sum()} trials {where}", fontsize=9)
    figure.colorbar(dots, ax=grid, fraction=0.03, pad=0.01, label="Trial")
    if "pruned" in handles:
        figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _compared(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that are compared by their params: those that are complete or pruned, and have a value."""
    return trials[trials["state"].isin(["complete", "pruned"]) & trials["best_value"].notna()]


def _set_slice_axis(axes: Axes, distribution: BaseDistribution) -> None:
    """Set the scale, limits and ticks of a parameter's axis."""
    if isinstance(distribution, CategoricalDistribution):
        labels = [str(choice) for choice in distribution.choices]
        axes.set_xticks(range(len(labels)), labels, rotation=30 if sum(map(len, labels)) > 24 else 0)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        return
    low, high = _range(distribution)
    log = bool(getattr(distribution, "log", False))
    margin = 0.04 * (np.log(high / low) if log else high - low) or 0.5
    axes.set_xlim((low / np.exp(margin), high * np.exp(margin)) if log else (low - margin, high + margin))
    if log:
        axes.set_xscale("log")
    whole = isinstance(distribution, IntDistribution)
    axes.xaxis.set_major_locator(LogLocator() if log else MaxNLocator(5, integer=whole))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _slice_positions(values: pd.Series, distribution: BaseDistribution) -> Any:
    """Return where a parameter's values lie on its axis; equal choices are spread a little."""
    if not isinstance(distribution, CategoricalDistribution):
        return values
    jitter = np.random.default_rng(0).uniform(-0.15, 0.15, len(values))
    # By value, not by text: a column with missing values holds its whole numbers as 8.0.
    return np.array([_index(value, distribution) for value in values]) + jitter


def plot_timeline(trials: pd.DataFrame) -> Figure:
    """Return when each trial was trained, one bar per trial, in as many rows as trials were trained at once."""
    ended = trials[trials["ended"].notna() & trials["started"].notna()]
    span = (ended["ended"].max() - ended["started"].min()).total_seconds()
    unit, seconds = next(
        (unit, size)
        for unit, size in (("hours", 3600), ("minutes", 60), ("seconds", 1))
        if span >= 3 * size or size == 1
    )
    began = ended["started"].min()
    begin = (ended["started"] - began).dt.total_seconds() / seconds
    finish = (ended["ended"] - began).dt.total_seconds() / seconds
    lanes = _lanes(begin, finish)
    figure, ((axes,),) = make_figure(height=float(np.clip(1.6 + 0.45 * (lanes.max() + 1), 2.4, 7)))
    few = len(ended) <= 80
    for state in ("complete", "pruned", "diverged", "failed"):
        rows = ended.index[ended["state"] == state]
        corners = [
            ((start, lane - 0.4), (end, lane - 0.4), (end, lane + 0.4), (start, lane + 0.4))
            for start, end, lane in zip(begin[rows], finish[rows], lanes[rows], strict=True)
        ]
        if corners:
            width = 0.8 if few else 0.0
            axes.add_collection(
                PolyCollection(corners, facecolors=COLOUR[state], edgecolors="white", linewidths=width, label=state)
            )
    for number in ended.index if few else ():
        if finish[number] - begin[number] > 0.02 * span / seconds:
            axes.text(
                (begin[number] + finish[number]) / 2,
                lanes[number],
                str(number),
                ha="center",
                va="center",
                fontsize=7,
                color="white",
            )
    axes.set(
        xlabel=f"Time since the first trial started ({unit})", ylabel="Trials at once", xlim=(0, 1.02 * span / seconds)
    )
    axes.set_ylim(-0.6, lanes.max() + 0.6)
    axes.set_yticks(range(lanes.max() + 1), range(1, lanes.max() + 2))
    axes.grid(alpha=0.25, axis="x")
    _legend(figure, axes)
    return figure


def _lanes(begin: pd.Series, finish: pd.Series) -> pd.Series:
    """Return each trial's row in the timeline: the first that is free when the trial begins."""
    free: list[float] = []
    lanes = {}
    for number in begin.sort_values(kind="stable").index:
        start = begin[number]
        lane = next((lane for lane, until in enumerate(free) if until <= start), len(free))
        free[lane : lane + 1] = [finish[number]]
        lanes[number] = lane
    return pd.Series(lanes).reindex(begin.index)


_ABSENT = -0.14
_BEHIND = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1}


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _size(count: int) -> float:
    """Return the area of a marker, in points squared, suitable for `count` of them."""
    return float(np.clip(4000 / max(count, 1), 6, 36))


def _column(measure: Measure) -> str:
    return f"validation_{measure.column}"


def _label(measure: Measure) -> str:
    return f"V{measure.label[1:]}"


def _worse(measure: Measure) -> str:
    return "below" if measure.maximize else "above"


def _least(value: float, measure: Measure) -> float:
    """Return the smallest difference that an axis should show as one."""
    return 0.01 if measure.is_share else 0.01 * abs(value) or 1e-9


def _set_worse_end(axes: Axes, edge: float, measure: Measure) -> None:
    if measure.maximize:
        axes.set_ylim(bottom=edge)
    else:
        axes.set_ylim(top=edge)


def _edge(values: pd.Series, measure: Measure) -> float:
    """Return the worse end of an axis that shows all values but a few far worse than the rest."""
    scores = measure.sign * values[np.isfinite(values)]
    if scores.empty:
        return 0.0
    low, high = float(scores.quantile(0.1)), float(scores.max())
    margin = max(high - low, _least(high, measure)) * 0.5
    edge = float(scores.min()) - 0.1 * margin
    if scores.min() < low - margin:
        edge = float(np.floor((low - margin) * 50) / 50) if measure.is_share else low - margin
    return measure.sign * max(edge, measure.sign * measure.worst)


def _sample(trials: pd.DataFrame, measure: Measure) -> Sequence[int]:
    """Return the numbers of the trials whose curves are drawn."""
    if len(trials) <= MOST_CURVES:
        return list(trials.index)
    best = (measure.sign * trials["best_value"].astype(float)).nlargest(MOST_CURVES // 10).index
    others = trials.index.difference(best)
    return sorted([*best, *others[:: -(-len(others) // (MOST_CURVES - len(best)))]])


def _sampled(drawn: int, count: int) -> str:
    return f"{drawn:,} of {count:,} trials are shown: the {MOST_CURVES // 10} best, and an even sample of the rest"


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return values stretched to [0, 1]."""
    low, high = values.min(initial=np.inf), values.max(initial=-np.inf)
    return (values - low) / (high - low) if high > low else np.full(len(values), 0.5)


def _positions(values: pd.Series, distribution: BaseDistribution) -> np.ndarray:
    """Return where on its axis, from 0 to 1, each value of a parameter lies; `_ABSENT` for none."""
    if isinstance(distribution, CategoricalDistribution):
        scale = max(len(distribution.choices) - 1, 1)
        return np.array([_ABSENT if pd.isna(value) else _index(value, distribution) / scale for value in values])
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(dtype=float)
    low, high = _range(distribution)
    if getattr(distribution, "log", False):
        numbers, low, high = np.log(numbers), np.log(low), np.log(high)
    scaled = (numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5)
    return np.where(np.isnan(numbers), _ABSENT, scaled)


def _index(value: Any, distribution: CategoricalDistribution) -> int:
    """Return the index of a choice, given as in the trials' frame."""
    choices = distribution.choices
    return choices.index(None if value == CHOSEN_NONE and value not in choices else value)


def _ticks(distribution: BaseDistribution) -> list[tuple[float, str]]:
    """Return the labels of a parameter's axis and their heights."""
    if isinstance(distribution, CategoricalDistribution):
        scale = max(len(distribution.choices) - 1, 1)
        return [(index / scale, str(choice)) for index, choice in enumerate(distribution.choices)]
    low, high = _range(distribution)
    return [(0.0, f"{low:g}"), (1.0, f"{high:g}")]


def _range(distribution: Any) -> tuple[float, float]:
    return float(distribution.low), float(distribution.high)

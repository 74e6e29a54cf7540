"""Helpers for the figures of several studies: colours, axes, curves of a history, the decision boundary.

Figures are matplotlib objects (no pyplot, no global state), about 900 pixels wide. Colours are those of Okabe and Ito,
which colour-blind readers can distinguish; line styles and markers always carry the same information.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import nn

from hpsearch.checkpoint import write_atomically
from hpsearch.datasets import Examples, Split
from hpsearch.errors import UsageError
from hpsearch.executors.trial_files import PARAMS
from hpsearch.loading import Source
from hpsearch.models import gradient_norms
from hpsearch.results.results import Results
from hpsearch.training import Run

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def make_figure(rows: int = 1, columns: int = 1, *, height: float = 3.6, **options: Any) -> tuple[Figure, Any]:
    """Return a figure 9 inches wide with `rows` of `height` inches, and its axes as an array (rows, columns)."""
    figure = Figure(figsize=(9, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all. Raises FilesUnavailable if it cannot be written."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_atomically(path, content.getvalue())


def style(index: int) -> dict[str, Any]:
    """Return colour and line style of the `index`-th series; their combination repeats only after 49."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": LINES[(index + index // len(COLOURS)) % len(LINES)]}


def plot_curves(
    axes: Axes,
    history: pd.DataFrame,
    column: str,
    series: Mapping[str, Sequence[int]],
    *,
    against: Literal["epoch", "step"] = "epoch",
    scale: Literal["linear", "log"] = "linear",
    first: int = 0,
) -> None:
    """Draw a column of the history against epochs or steps, one line per label of `series` (label: trials' numbers).

    If a label has several trials, the line is their mean over the epochs that all of them reached, and a band shows
    their range. Infinite values and NaN are left out. `scale` is that of the column; steps are on a logarithmic axis;
    `first` is the index of the first line's style.
    """
    for index, (label, numbers) in enumerate(series.items(), start=first):
        rows = history[history["number"].isin(numbers)]
        table = rows.pivot_table(index=against, columns="number", values=column)
        values = table.to_numpy(dtype=float)
        finite = np.isfinite(values).all(axis=1)
        xs, values = table.index.to_numpy(dtype=float)[finite], values[finite]
        axes.plot(xs, values.mean(axis=1), label=label, linewidth=1.8, **style(index))
        if len(numbers) > 1:
            low, high = values.min(axis=1), values.max(axis=1)
            axes.fill_between(xs, low, high, color=COLOURS[index % len(COLOURS)], alpha=0.15, linewidth=0)
    axes.set_xlabel(against)
    axes.set_ylabel(column.replace("_", " "))
    axes.set_yscale(scale)
    if against == "step":
        axes.set_xscale("log")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


def plot_boundary(axes: Axes, model: nn.Module, examples: Examples, *, margin: float = 1.0) -> None:
    """Draw points in the plane, inputs (N, 2), and the decision boundary of a model with outputs f, (N, 1).

    Filled contours are f, blue where positive and orange where negative, clipped at the median magnitude of f at the
    points; the black line is f = 0. Points on the wrong side are ringed. Raises UsageError for examples that are not in
    memory.
    """
    inputs, targets = in_memory(examples)
    positive = targets > 0
    x, y = (_range(inputs[:, axis], margin) for axis in (0, 1))
    grid_x, grid_y = torch.meshgrid(x, y, indexing="xy")
    with torch.inference_mode():
        outputs = model(torch.stack([grid_x.flatten(), grid_y.flatten()], dim=1)).view_as(grid_x)
        at_points = model(inputs).flatten()
    bound = max(float(at_points.abs().median()), 1e-6)
    axes.contourf(
        grid_x.numpy(),
        grid_y.numpy(),
        outputs.clamp(-bound, bound).numpy(),
        levels=np.linspace(-bound, bound, 13),
        cmap=_DIVERGING,
        alpha=0.85,
    )
    if outputs.min() < 0 < outputs.max():
        axes.contour(grid_x.numpy(), grid_y.numpy(), outputs.numpy(), levels=[0.0], colors="black", linewidths=1.8)
    for chosen, marker, colour, label in ((positive, "P", COLOURS[0], "+"), (~positive, "o", COLOURS[1], "−")):
        xs, ys = inputs[chosen].T.numpy()
        axes.scatter(xs, ys, marker=marker, s=70, color=colour, edgecolors="white", linewidths=1, zorder=3, label=label)
    xs, ys = inputs[(at_points > 0) != positive].T.numpy()
    axes.scatter(xs, ys, s=220, facecolors="none", edgecolors="black", linewidths=1.5, zorder=4)
    axes.set_xlabel("$x_1$")
    axes.set_ylabel("$x_2$")


def _range(values: torch.Tensor, margin: float, points: int = 200) -> torch.Tensor:
    return torch.linspace(float(values.min()) - margin, float(values.max()) + margin, points)


def by_parameter(trials: pd.DataFrame, *names: str) -> dict[str, list[int]]:
    """Return the trials' numbers by the values of the named parameters, in the order of the values."""
    columns = [f"params.{name}" for name in names]
    return {
        ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values): list(rows.index)
        for values, rows in trials.groupby(columns, sort=True)
    }


def mark_diverged(
    axes: Axes,
    history: pd.DataFrame,
    series: Mapping[str, Sequence[int]],
    trials: pd.DataFrame,
    *,
    against: Literal["epoch", "step"] = "epoch",
) -> None:
    """Mark the last report of each trial that diverged by a cross at the upper edge, in its line's colour."""
    for index, numbers in enumerate(series.values()):
        for number in numbers:
            if trials.loc[number, "reason"] == "diverged":
                last = history.loc[history["number"] == number, against].max()
                axes.plot(
                    last,
                    1.0,
                    "X",
                    color=COLOURS[index % len(COLOURS)],
                    markeredgecolor="black",
                    markersize=10,
                    transform=axes.get_xaxis_transform(),
                    clip_on=False,
                    zorder=5,
                )


def start_gradients(results: Results, number: int) -> dict[str, float]:
    """Return the gradient norm in each layer (see `gradient_norms`) of a trial before its first step.

    The initial model is built again from the trial's params and seed; the gradient is over all the training data.
    Raises UsageError if the trial's folder is gone, or the data are not in memory.
    """
    file = results.stored.trial_folder(number) / PARAMS
    if not file.exists():
        raise UsageError(
            f"trial {number} has no {file}, which holds its params and seed: run the study again, or give --runs"
        )
    config = json.loads(file.read_text())
    run = Run(results.study, config["params"], results.data, seed=config["seed"])
    return gradient_norms(run.model, run.loss, *in_memory(run.train_split))


def in_memory(examples: Source) -> Split:
    """Return examples that are tensors. Raises UsageError for a torch `Dataset`."""
    if not isinstance(examples, Split):
        raise UsageError(f"this figure needs its examples in memory, as a hpsearch.Split; got {examples!r}")
    return examples


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("class", ["#F3B48B", "#FFFFFF", "#8BBEDF"])


_DIVERGING = _diverging()

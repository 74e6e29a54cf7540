"""The final model of a configuration: confirmed under new seeds, trained on all data, tested once.

Only the executor writes files here: each seed's resume point, so that the same command continues where it stopped.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from scipy.stats import binomtest
from scipy.stats import t as student_t
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from hpsearch.datasets import Dataset, Examples, Split, length
from hpsearch.errors import HpsearchError, UsageError, last_line
from hpsearch.executors import Died, Ended, Executor, Outcome, Reported, Task
from hpsearch.loading import EVALUATION_BATCH, Source, call, close, in_order, source
from hpsearch.measure import ACCURACY, LOSS, Measure, Targets
from hpsearch.meters import class_numbers, make_meter, measure_of, predicted_numbers
from hpsearch.optim import Loss
from hpsearch.own_run import OwnRun, start_run
from hpsearch.results.configurations import Configuration
from hpsearch.seeding import derive_seed
from hpsearch.study import Steps, Study
from hpsearch.text import plural
from hpsearch.training import IntervalReport, Run

RETRIES = 2
RESAMPLES = 500
# The fewest seeds that can show a lucky one; a seed is lucky if fewer than this fraction of others are as good.
FEW_SEEDS, LUCKY = 3, 0.05


def confirm(
    configurations: Sequence[Configuration],
    seeds: int,
    executor: Executor,
    folder: Path,
    *,
    device: str,
    reported: Callable[[int, int, IntervalReport], None],
    ended: Callable[[int, int, Outcome], None],
) -> pd.DataFrame:
    """Train each configuration under `seeds` new seeds, as in the search; return one row per training.

    Columns: candidate (from 1), seed (from 1), value (best validation measure), best_interval, intervals, reason,
    seconds, error; a training that failed has its reason and error, and may have no value. Raises HpsearchError if one
    cannot continue for an external reason, such as a full disk.
    """
    tasks = [
        Task(
            number=candidate * seeds + index,
            params=configuration.params,
            seed=derive_seed(configuration.trial_seed, "confirm", index + 1),
            folder=folder / f"{configuration.digest[:12]}-{index + 1}",
            identity=f"{configuration.digest}/{index + 1}",
            device=device,
        )
        for candidate, configuration in enumerate(configurations)
        for index in range(seeds)
    ]
    outcomes = _train_tasks(tasks, seeds, executor, reported=reported, ended=ended)
    return pd.DataFrame(
        [
            {
                "candidate": number // seeds + 1,
                "seed": number % seeds + 1,
                "value": outcome.best_value,
                "best_interval": outcome.best_interval,
                "intervals": outcome.intervals,
                "reason": outcome.reason,
                "seconds": outcome.seconds,
                "error": outcome.error,
            }
            for number, outcome in sorted(outcomes.items())
        ]
    )


def _train_tasks(
    tasks: Sequence[Task],
    seeds: int,
    executor: Executor,
    *,
    reported: Callable[[int, int, IntervalReport], None],
    ended: Callable[[int, int, Outcome], None],
) -> dict[int, Outcome]:
    """Train all tasks, as many at once as `executor` has slots; return their outcomes by number.

    A task whose worker dies is tried again, `RETRIES` times at most.
    """
    waiting = list(tasks)
    running: dict[int, Task] = {}
    deaths: dict[int, int] = {}
    outcomes: dict[int, Outcome] = {}
    while waiting or running:
        while waiting and len(running) < executor.slots:
            task = waiting.pop(0)
            running[task.number] = task
            executor.submit(task)
        for event in executor.events(0.1):
            candidate, seed = (part + 1 for part in divmod(event.number, seeds))
            if isinstance(event, Reported):
                executor.reply(event.number, "continue")
                reported(candidate, seed, event.report)
            elif isinstance(event, Ended):
                if event.outcome.reason == "interrupted":
                    raise HpsearchError(f"candidate {candidate}, seed {seed}: {event.outcome.error or 'interrupted'}")
                outcomes[event.number] = event.outcome
            elif isinstance(event, Died):
                deaths[event.number] = deaths.get(event.number, 0) + 1
                if deaths[event.number] > RETRIES:
                    outcomes[event.number] = Outcome(reason="failed", error=event.why)
                else:
                    waiting.insert(0, running.pop(event.number))
            if event.number in running and event.number in outcomes:
                del running[event.number]
                ended(candidate, seed, outcomes[event.number])
    return outcomes


def candidates_frame(
    configurations: Sequence[Configuration], confirmed: pd.DataFrame, measure: Measure = ACCURACY
) -> pd.DataFrame:
    """Return one row per candidate, the best confirmed mean first; one that failed under a seed cannot be the best.

    `searched` is its value in the search, `mean`, `sd`, `low`, `high` are those over the seeds; `intervals` is the
    median of the best intervals (the lower of two). `failed` seeds raised an error or diverged; a diverged seed's best
    value counts in the mean, but its candidate ranks below those that did not fail. Raises HpsearchError if every
    candidate failed under a seed.
    """
    failed = confirmed["reason"].isin(["failed", "diverged"])
    if failed.groupby(confirmed["candidate"]).any().all():
        first = confirmed[failed].iloc[0]
        raise HpsearchError(
            f"every candidate failed under a seed, so none can be the final model; candidate {first['candidate']}, "
            f"seed {first['seed']}: {last_line(first['error'])}"
        )
    frame = (
        confirmed.assign(failed=failed)
        .groupby("candidate")
        .agg(
            failed=("failed", "sum"),
            seeds=("value", "count"),
            mean=("value", "mean"),
            sd=("value", "std"),
            low=("value", "min"),
            high=("value", "max"),
            intervals=("best_interval", _median_low),
        )
    )
    frame.insert(0, "searched", [configurations[candidate - 1].value for candidate in frame.index])
    frame.insert(0, "trial", [configurations[candidate - 1].trial for candidate in frame.index])
    frame["whole"] = frame["failed"] == 0
    order = [False, not measure.maximize]
    frame = frame.sort_values(["whole", "mean"], ascending=order, kind="stable").drop(columns="whole")
    return frame.reset_index()


def _median_low(intervals: "pd.Series[float]") -> float:
    reached = [int(interval) for interval in intervals.dropna()]
    return statistics.median_low(reached) if reached else float("nan")


def luck(searched: float, mean: float, sd: float, seeds: int, measure: Measure = ACCURACY) -> str:
    """Return a sentence on whether a search's value was that of a lucky seed.

    It was if another seed would be as good in fewer than 5 % of cases, by the t-distribution of `seeds` values with
    this mean and sample standard deviation.
    """
    if seeds < FEW_SEEDS:
        return (
            f"{plural(seeds, 'new seed')} cannot show whether the search's was lucky: --seeds {FEW_SEEDS} or more can."
        )
    value, beyond = measure.format(searched), "above" if measure.maximize else "below"
    if not measure.is_better(searched, mean):
        return f"The search's {value} is not {beyond} that mean: its seed was not a lucky one."
    distance = measure.gain(searched, mean) / sd if sd > 0 else float("inf")
    chance = float(student_t.sf(distance / (1 + 1 / seeds) ** 0.5, seeds - 1))
    where = f"{distance:.1f} standard deviations" if sd > 0 else "further than the seeds differ"
    if chance >= LUCKY:
        return (
            f"The search's {value} lies {where} {beyond} that mean, as another seed would in {chance:.0%} of "
            f"cases: its seed need not be a lucky one."
        )
    return (
        f"The search's {value} lies {where} {beyond} that mean, as another seed would in fewer than {LUCKY:.0%} "
        f"of cases: its seed was a lucky one."
    )


def joined(data: Dataset) -> Dataset:
    """Return a data set that trains on training and validation examples; its validation examples are thus seen data."""
    train: Examples
    if isinstance(data.train, Split) and isinstance(data.validation, Split):
        train = Split(*(torch.cat(parts) for parts in zip(data.train, data.validation, strict=True)))
    else:
        train = ConcatDataset([_as_dataset(data.train), _as_dataset(data.validation)])
    return replace(data, train=train, test=None)


def train_final_model(
    study: Study,
    configuration: Configuration,
    data: Dataset,
    intervals: int,
    *,
    device: str,
    reported: Callable[[IntervalReport, int], None],
) -> Run | OwnRun:
    """Train on training and validation data for `intervals` intervals, from the trial's own seed, and return the run.

    A recipe with a learning rate schedule is trained to the schedule's end instead: earlier, the learning rate is still
    large and the weights have not converged. On a CPU one thread trains, so that the same configuration gives the same
    weights, bit for bit. Raises HpsearchError if it diverges.
    """
    together = joined(data)
    run = start_run(study, configuration.params, together, seed=configuration.trial_seed, device=device)
    if isinstance(study.interval, Steps):
        intervals = round(intervals * length(together.train) / length(data.train))
    intervals = run.intervals if run.schedule else max(1, min(intervals, run.intervals))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for report in run.train():
            reported(report, intervals)
            if report.diverged:
                raise HpsearchError(
                    f"the final training diverged in {study.unit} {report.interval}, so nothing was tested or written: "
                    f"leave this candidate out"
                )
            if report.interval == intervals:
                break
    finally:
        torch.set_num_threads(threads)
    return run


Answers = Literal["classes", "numbers", "other"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results on the test set: `values` of the measures by name, the study's first, and accuracy for classes.

    `low` and `high` bound the 95 % interval of the first: Wilson's for an accuracy, else from bootstrap samples of the
    examples. `seconds` is per 1,000 examples. For classes, `correct` of `count` answers are right, `confusion` has a
    row for each true class and a column for each predicted one, and `classes` has precision, recall, F1 and the number
    of examples of each class. For numbers, `numbers` has the columns `true` and `predicted`, and `output` if there are
    several.
    """

    examples: int
    measure: Measure
    values: Mapping[str, float]
    low: float
    high: float
    seconds: float
    count: int = 0
    correct: int = 0
    confusion: pd.DataFrame | None = None
    classes: pd.DataFrame | None = None
    numbers: pd.DataFrame | None = None

    @property
    def value(self) -> float:
        """The study's measure."""
        return self.values[self.measure.name]

    @property
    def accuracy(self) -> float:
        """The share of correct answers."""
        return self.values[ACCURACY.name]

    @property
    def has_interval(self) -> bool:
        """Whether `low` and `high` are known."""
        return not math.isnan(self.low)

    @property
    def interval(self) -> str:
        """The name of the method that gave `low` and `high`."""
        return "Wilson" if self.measure == ACCURACY else f"bootstrap, {RESAMPLES} samples"

    @property
    def bounds(self) -> str:
        """`low` and `high` as a text, empty if they are not known."""
        return f"95 % interval {self.format(self.low)} to {self.format(self.high)}" if self.has_interval else ""

    def format(self, value: float) -> str:
        """Return a value of the study's measure as a text: an accuracy as a percentage."""
        return f"{value:.2%}" if self.measure == ACCURACY else self.measure.format(value)


def answers_of(study: Study, data: Dataset) -> Answers:
    """Return what a study's models answer: a class or a number for each example (or position), or something else."""
    targets_of_measure: Targets = study.measure.targets
    if targets_of_measure != "any":
        return targets_of_measure
    kinds = {measure.targets for measure in study.measures}
    if "numbers" in kinds:
        return "numbers"
    if "classes" in kinds:
        return "classes"
    targets = data.train.targets if isinstance(data.train, Split) else None
    if data.classes and (targets is None or not targets.is_floating_point()):
        return "classes"
    return "numbers" if targets is not None and targets.is_floating_point() and not data.classes else "other"


def evaluate_once(
    study: Study, model: nn.Module, loss: Loss, data: Dataset, batch_size: int = EVALUATION_BATCH
) -> Evaluation:
    """Evaluate a model on the test split; one not in memory is read in batches of `batch_size`.

    Raises UsageError if the data set has none.
    """
    if data.test is None:
        raise UsageError("the data set has no test split to evaluate on: return one from the dataset function")
    began = time.perf_counter()
    test = source(data, "test", next(model.parameters()).device, batch_size=batch_size)
    try:
        outputs, targets = all_outputs(model, test)
    finally:
        close(test)
    seconds = (time.perf_counter() - began) / length(data.test) * 1000
    kind, measures = _fitting(answers_of(study, data), outputs, targets), list(study.measures)
    if kind == "classes" and ACCURACY not in measures:
        measures.append(ACCURACY)
    elif kind == "numbers":
        measures += [extra for extra in map(measure_of, ("MSE", "MAE", "R2")) if extra not in measures]
    device = next(model.parameters()).device

    def value(measure: Measure, outputs: Tensor, targets: Tensor) -> float:
        if measure == LOSS:
            with torch.no_grad():
                # On the device, where the loss's own tensors may be.
                return float(loss(outputs.to(device), targets.to(device)))
        meter = make_meter(measure, torch.device("cpu"))
        meter.update(outputs, targets)
        return meter.compute()

    values = {measure.name: value(measure, outputs, targets) for measure in measures}
    found: dict[str, Any] = {}
    if kind == "classes":
        found = _of_classes(outputs, targets, data.classes)
    elif kind == "numbers":
        found = {"numbers": _of_numbers(outputs, targets)}
    if study.measure == ACCURACY:
        low, high = _wilson(found["correct"], found["count"])
    else:
        low, high = _bootstrap(lambda chosen: value(study.measure, outputs[chosen], targets[chosen]), len(targets))
    return Evaluation(
        examples=length(data.test), measure=study.measure, values=values, low=low, high=high, seconds=seconds, **found
    )


def evaluate_training(study: Study, run: OwnRun, data: Dataset) -> Evaluation:
    """Evaluate a user's own training on the test split, by its own method; if it has a model, also by its answers.

    The interval of the study's measure is known if that is the accuracy.
    """
    assert data.test is not None
    began = time.perf_counter()
    values = {name: float(value) for name, value in run.training.evaluate(data.test).items()}
    seconds = (time.perf_counter() - began) / length(data.test) * 1000
    found: dict[str, Any] = {}
    low = high = math.nan
    kind = answers_of(study, data)
    if run.evaluated is not None and kind != "other":
        test = source(data, "test", next(run.evaluated.parameters()).device)
        try:
            outputs, targets = all_outputs(run.evaluated, test)
        finally:
            close(test)
        kind = _fitting(kind, outputs, targets)
        if kind != "other":
            classes = kind == "classes"
            found = (
                _of_classes(outputs, targets, data.classes) if classes else {"numbers": _of_numbers(outputs, targets)}
            )
    if study.measure == ACCURACY:
        correct = round(values[ACCURACY.name] * length(data.test))
        low, high = _wilson(correct, length(data.test))
        found = {"correct": correct, "count": length(data.test)} | found
    return Evaluation(
        examples=length(data.test), measure=study.measure, values=values, low=low, high=high, seconds=seconds, **found
    )


def _wilson(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, J. Am. Stat. Assoc. 22, 1927)."""
    interval = binomtest(correct, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def _fitting(kind: Answers, outputs: Tensor, targets: Tensor) -> Answers:
    """Return what models answer, or "other" if their outputs do not fit that."""
    check = {"classes": class_numbers, "numbers": predicted_numbers}.get(kind)
    try:
        if check is not None:
            check(outputs, targets)
    except UsageError:
        return "other"
    return kind


def all_outputs(model: nn.Module, split: Source) -> tuple[Tensor, Tensor]:
    """Return a model's outputs on a split (N, ...), in evaluation mode, and the targets (N, ...), on the CPU."""
    device = next(model.parameters()).device
    model.eval()
    batches = []
    with torch.no_grad():
        for inputs, targets in in_order(split, device):
            # An output without dimensions is that of a batch of one, squeezed.
            batches.append((torch.atleast_1d(call(model, inputs).cpu()), targets.cpu()))
    outputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return outputs, targets


def _bootstrap(value: Callable[[Tensor], float], examples: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a value of chosen examples (Efron, Ann. Statist. 7, 1979)."""
    generator = torch.Generator().manual_seed(0)

    def known(chosen: Tensor) -> float:
        # Samples without an example of some class have no value; a function of the user's may raise an error instead.
        try:
            return value(chosen)
        except Exception:
            return math.nan

    values = [known(torch.randint(examples, (examples,), generator=generator)) for _ in range(RESAMPLES)]
    defined = [value for value in values if math.isfinite(value)] or [math.nan]
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def _of_classes(outputs: Tensor, targets: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    predicted, truth = (part.numpy() for part in class_numbers(outputs, targets))
    labels = list(range(len(names)))
    precision, recall, f1, support = precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    return {
        "count": len(truth),
        "correct": int((predicted == truth).sum()),
        "confusion": pd.DataFrame(
            confusion_matrix(truth, predicted, labels=labels), index=list(names), columns=list(names)
        ),
        "classes": pd.DataFrame(
            {"class": names, "precision": precision, "recall": recall, "f1": f1, "examples": support}
        ),
    }


def _of_numbers(outputs: Tensor, targets: Tensor) -> pd.DataFrame:
    predicted, true = (
        part.flatten(1) if part.dim() > 1 else part[:, None] for part in predicted_numbers(outputs, targets)
    )
    frame = pd.DataFrame({"true": true.flatten(), "predicted": predicted.flatten()})
    if true.shape[1] > 1:
        frame.insert(0, "output", np.tile(np.arange(true.shape[1]), len(true)))
    return frame


def _as_dataset(split: Examples) -> "torch.utils.data.Dataset[Any]":
    return torch.utils.data.TensorDataset(*split) if isinstance(split, Split) else split

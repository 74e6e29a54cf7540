"""Train one trial in a worker: save its best weights and a resume point from which it continues exactly.

The names of its files are in `hpsearch.executors.trial_files`.
"""

import csv
import io
import json
import traceback
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from hpsearch import checkpoint
from hpsearch.cost import measure_cost
from hpsearch.datasets import Dataset
from hpsearch.errors import CannotContinue, TrialLost, WorkerDied
from hpsearch.executors.fence import Fence
from hpsearch.executors.trial_files import BEST_WEIGHTS, EVENTS, HISTORY, PARAMS, PREVIOUS_RESUME_POINT, RESUME_POINT
from hpsearch.measure import Measure
from hpsearch.own_run import start_run
from hpsearch.stopping import Stopper
from hpsearch.study import Study
from hpsearch.training import IntervalReport

Reason = Literal["target", "patience", "budget", "pruned", "diverged", "failed", "infeasible", "interrupted", "lost"]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trial to be trained. `identity` names the trial and its study: files in `folder` of another one are ignored.

    Of several claims of one trial, the one with the largest number `claim` is valid: the workers of the others cannot
    write.
    """

    number: int
    params: dict[str, Any]
    seed: int
    folder: Path
    identity: str
    claim: int = 0
    device: str = "cpu"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a trial ended. `best_value` is the best value of the study's measure, reached at interval `best_interval`.

    `parameters` are those that are trained; the other costs are those of `hpsearch.cost.Cost`.
    The reason `infeasible` means that the configuration does not meet a requirement of the recipe, which `error` names,
    and `lost` that another supervisor has claimed the trial and continues it.
    """

    reason: Reason
    intervals: int = 0
    best_value: float | None = None
    best_interval: int | None = None
    seconds: float = 0.0
    parameters: int | None = None
    multiply_adds: int | None = None
    latency_ms: float | None = None
    batch_latency_ms: float | None = None
    error: str | None = None


class Control(Protocol):
    """The interface through which an executor controls a task."""

    def stop(self) -> bool:
        """Return whether to stop at this batch, pruned or interrupted."""

    def verdict(self) -> Literal["continue", "prune", "interrupt"]:
        """Return the verdict on the last report, waiting for it if it is due."""

    def warn(self, message: str) -> None:
        """Warn the user of something that does not end the trial."""


def work(task: Task, study: Study, data: Dataset, control: Control) -> Generator[IntervalReport, None, Outcome]:
    """Train a task, yielding its reports, including those from before a resume point; return the outcome.

    While the verdict on the last report is pending, the next interval is trained, but it is neither written nor
    reported. What is stored therefore does not depend on when the verdict arrives. Raises WorkerDied if a
    process that reads examples has died.
    """
    # The user's code may change the working directory.
    task = replace(task, folder=task.folder.absolute())
    try:
        outcome = yield from _Training(task, study, data, control).train()
    except TrialLost:
        return Outcome(reason="lost")
    except WorkerDied:
        raise
    except CannotContinue as error:
        return Outcome(reason="interrupted", error=str(error))
    except (Exception, SystemExit):
        return Outcome(reason="failed", error=traceback.format_exc())
    return outcome


class _Training:
    def __init__(self, task: Task, study: Study, data: Dataset, control: Control) -> None:
        self.task = task
        self.control = control
        self.history: list[IntervalReport] = []
        self.best: IntervalReport | None = None
        self.best_weights: dict[str, Any] | None = None
        self.measure = study.measure
        self.stopper = Stopper(study.early_stopping, study.measure)
        self.run = start_run(study, task.params, data, seed=task.seed, device=task.device)
        with checkpoint.accessing(task.folder):
            task.folder.mkdir(parents=True, exist_ok=True)
        self.fence = Fence(task.folder, task.identity, task.claim)

    def train(self) -> Generator[IntervalReport, None, Outcome]:
        self.fence.enter()
        resume_point = self._resume_point()
        if resume_point is None:
            config = {"number": self.task.number, "params": self.task.params, "seed": self.task.seed}
            content = json.dumps(config, indent=2).encode()
            checkpoint.write_atomically(self.task.folder / PARAMS, content, guard=self.fence.held())
        else:
            for row in resume_point["history"]:
                report = _report(row)
                self._remember(report)
                yield report
                self.control.verdict()
            if resume_point["outcome"]:
                return Outcome(**resume_point["outcome"])
            # A trial that is pruned now also needs its best weights, which are in the resume point.
            self._restore(resume_point)
            if self.stopper.reason is not None:
                return self._end(self.stopper.reason)

        with checkpoint.accessing(self.task.folder), self.fence.held():
            for old in self.task.folder.glob(EVENTS):
                old.unlink()
        with _Events(self.task.folder, self.task.params, self.measure, self.history) as events:
            for report in self.run.train(self.control.stop):
                if (verdict := self.control.verdict()) != "continue":
                    return self._stopped(verdict)
                if report.diverged:
                    return self._end("diverged", error=_diverged(report, self.run.unit))
                stop_reason = self.stopper.update(report.train_value, report.value)
                self._remember(report)
                self._save(report)
                events.add(report)
                yield report
                if stop_reason is not None:
                    return self._end(stop_reason)
        if not self.run.is_finished:
            return self._stopped(self.control.verdict())
        return self._end("budget")

    def _remember(self, report: IntervalReport) -> None:
        self.history.append(report)
        if self.measure.is_better(report.value, self.best and self.best.value):
            self.best = report

    def _save(self, report: IntervalReport) -> None:
        """Write the resume point, which includes the best weights, then the files that can be restored from it."""
        if report is self.best:
            self.best_weights = self.run.kept_state()
        self._save_resume_point(None)
        self._save_history()

    def _save_history(self) -> None:
        # It need not be durable: the resume point also contains the history.
        path = self.task.folder / HISTORY
        checkpoint.write_atomically(path, _csv(self.history), durable=False, guard=self.fence.held())

    def _save_best(self) -> None:
        assert self.best is not None
        # The resume point of an ended trial, written next, does not contain them.
        assert self.best_weights is not None
        best = {
            "model": self.best_weights,
            "params": self.task.params,
            "interval": self.best.interval,
            f"validation_{self.measure.column}": self.best.value,
            "identity": self.task.identity,
        }
        checkpoint.save(self.task.folder / BEST_WEIGHTS, best, guard=self.fence.held())

    def _save_resume_point(self, outcome: Outcome | None) -> None:
        """Replace the resume point, and keep the previous one in case the new one is damaged."""
        state = {
            "identity": self.task.identity,
            "history": [asdict(report) for report in self.history],
            "stopper": self.stopper.state_dict(),
            "run": None if outcome else self.run.state_dict(),
            # If the last interval is the best, its weights are already in the state of the run.
            "best_weights": None if outcome or self.history[-1] is self.best else self.best_weights,
            "outcome": asdict(outcome) if outcome else None,
        }
        folder = self.task.folder
        checkpoint.save(folder / RESUME_POINT, state, previous=folder / PREVIOUS_RESUME_POINT, guard=self.fence.held())

    def _resume_point(self) -> dict[str, Any] | None:
        for name in (RESUME_POINT, PREVIOUS_RESUME_POINT):
            with checkpoint.accessing(self.task.folder / name):
                state = checkpoint.load_or_none(self.task.folder / name, self.control.warn)
            if state is not None and state["identity"] == self.task.identity:
                return state
        return None

    def _restore(self, state: dict[str, Any]) -> None:
        self.run.load_state_dict(state["run"])
        self.stopper.load_state_dict(state["stopper"])
        self.best_weights = state["best_weights"] or self.run.kept_state()
        self._save_history()

    def _stopped(self, verdict: str) -> Outcome:
        return self._end("pruned") if verdict == "prune" else self._outcome("interrupted")

    def _end(self, reason: Reason, error: str | None = None) -> Outcome:
        """Return the outcome, after writing it to disk in case the supervisor ends before it has stored it."""
        if self.best is not None:
            self._save_best()
        outcome = replace(self._outcome(reason, error), **asdict(measure_cost(self.run)))
        self._save_resume_point(outcome)
        return outcome

    def _outcome(self, reason: Reason, error: str | None = None) -> Outcome:
        return Outcome(
            reason=reason,
            intervals=len(self.history),
            best_value=self.best.value if self.best else None,
            best_interval=self.best.interval if self.best else None,
            seconds=sum(report.seconds for report in self.history),
            # A training of the user's own may not say how many it has.
            parameters=self.run.parameters or None,
            error=error,
        )


def _csv(history: list[IntervalReport]) -> bytes:
    rows = [report.as_row() for report in history]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _report(row: Any) -> IntervalReport:
    """Return a report as a resume point holds it; those of earlier versions hold lists of accuracies and losses."""
    if isinstance(row, dict):
        return IntervalReport(**row)
    interval, epoch, step, train_loss, train_accuracy, validation_loss, validation_accuracy, learning_rate, seconds = (
        row
    )
    return IntervalReport(
        interval=interval,
        epoch=epoch,
        step=step,
        train={"loss": train_loss, "accuracy": train_accuracy},
        validation={"loss": validation_loss, "accuracy": validation_accuracy},
        learning_rate=learning_rate,
        seconds=seconds,
    )


def _diverged(report: IntervalReport, unit: str) -> str:
    splits = (("training", report.train), ("validation", report.validation))
    figures = [f"{split} loss {measures['loss']:g}" for split, measures in splits if "loss" in measures]
    figures = figures or [f"validation {report.measure} {report.value:g}"]
    return f"diverged in {unit} {report.interval}: {', '.join(figures)}; a smaller step size may help"


class _Events:
    """Writes the TensorBoard events of a trial, again from `history` if the trial is resumed.

    The summary that lists the parameters and metrics of an experiment is left out: without it, the HParams tab collects
    them from all trials; with it, parameters that the first trial does not have would be missing.
    """

    def __init__(self, folder: Path, params: dict[str, Any], measure: Measure, history: list[IntervalReport]) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._folder = folder
        self._measure = measure
        self._best: float | None = None
        values = {name: value if isinstance(value, str | int | float) else str(value) for name, value in params.items()}
        _, start, self._end = hparams(values, {})
        with checkpoint.accessing(folder):
            self._writer = SummaryWriter(str(folder), flush_secs=10)
            # `add_hparams` would write to a separate folder.
            self._writer._get_file_writer().add_summary(start)
        for report in history:
            self.add(report)

    def __enter__(self) -> "_Events":
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        with checkpoint.accessing(self._folder):
            if kind is None:
                self._writer._get_file_writer().add_summary(self._end)
            self._writer.close()

    def add(self, report: IntervalReport) -> None:
        if self._measure.is_better(report.value, self._best):
            self._best = report.value
        values: dict[str, float] = {}
        for split, measures in (("train", report.train), ("validation", report.validation)):
            values |= {f"{name}/{split}": value for name, value in measures.items()}
        if self._best is not None:
            values[f"{self._measure.name}/best_validation"] = self._best
        if report.learning_rate is not None:
            values["learning_rate"] = report.learning_rate
        for tag, value in values.items():
            with checkpoint.accessing(self._folder):
                # TensorBoard's page does not take spaces in tags.
                self._writer.add_scalar(tag.replace(" ", "_"), value, report.interval)

"""The progress of `hpsearch retrain`."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from hpsearch.errors import last_line
from hpsearch.executors import Outcome
from hpsearch.study import Study
from hpsearch.text import duration
from hpsearch.training import IntervalReport


class RetrainProgress:
    """One line per finished training; a bar on a terminal, a line per interval of the final training in a pipe."""

    def __init__(self, console: Console, trainings: int, intervals: int, study: Study) -> None:
        self._console = console
        self._trainings, self._intervals, self._unit = trainings, intervals, study.unit
        self._measure = study.measure
        self._done = 0
        self._running: dict[tuple[int, int], float] = {}
        self._began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(24), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("confirming", total=trainings)

    def __enter__(self) -> "RetrainProgress":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def reported(self, candidate: int, seed: int, report: IntervalReport) -> None:
        """Record an interval of a candidate under a seed."""
        self._running[candidate, seed] = min(report.interval / self._intervals, 1.0)
        self._update()

    def ended(self, candidate: int, seed: int, outcome: Outcome) -> None:
        """Print how a candidate's training under a seed ended."""
        self._done += 1
        self._running.pop((candidate, seed), None)
        self._update()
        if outcome.error is None:
            assert outcome.best_value is not None
            result = f"best {self._measure.label} {self._measure.format(outcome.best_value)}"
        else:
            result = f"{outcome.reason}: {last_line(outcome.error)}"
        left = (time.monotonic() - self._began) / self._done * (self._trainings - self._done)
        count = f"{self._done}/{self._trainings}" + (f", {duration(left)} left" if left else "")
        self._console.print(f"candidate {candidate}, seed {seed}: {result}  ({count})", soft_wrap=True)

    def finally_reported(self, report: IntervalReport, intervals: int) -> None:
        """Record an interval of the final training."""
        description = f"final training, {report.interval} of {intervals}"
        self._bar.update(self._task, description=description, total=intervals, completed=report.interval)
        if report.interval == intervals or not self._console.is_terminal:
            value = report.train_value
            training = "" if value != value else f", training {self._measure.name} {self._measure.format(value)}"
            self._console.print(f"final: {self._unit} {report.interval}/{intervals}{training}", soft_wrap=True)

    def _update(self) -> None:
        self._bar.update(self._task, completed=self._done + sum(self._running.values()))

"""The progress of `hpsearch run`: a live table on a terminal, one line per finished trial in a pipe."""

import time
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.errors import last_line
from hpsearch.executors import Outcome, Task
from hpsearch.measure import ACCURACY
from hpsearch.search.observer import Observer
from hpsearch.search.search import Loaded, Search
from hpsearch.search.stored_study import StoredStudy
from hpsearch.search.trial_record import INFEASIBLE
from hpsearch.space import counted
from hpsearch.text import duration, plural, short
from hpsearch.training import IntervalReport

REFRESH_SECONDS = 0.25


def run_progress(console: Console) -> "RunLines":
    """Return the observer for `console`: a table on a terminal, lines elsewhere."""
    return RunTable(console) if console.is_terminal else RunLines(console)


@dataclass
class _Row:
    task: Task
    done: int
    last: float | None = None


class RunLines(Observer):
    """One line per finished trial, and the messages."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.name = ""
        self.intervals = 0
        self.unit = "interval"
        self.measure = ACCURACY
        self.rows: dict[int, _Row] = {}
        self.states: dict[TrialState, int] = {}
        self.infeasible = 0
        self.limit = 0
        self.best: tuple[float, int] | None = None
        self.began = time.monotonic()
        self.finished_here = 0

    def __enter__(self) -> "RunLines":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def opened(self, stored: StoredStudy, search: Search, loaded: Loaded) -> None:
        """Print what the run will do, and read the study's best trial so far."""
        self.name, self.intervals, self.unit = stored.name, loaded.intervals, search.study_file.study.unit
        self.measure = search.study_file.study.measure
        if loaded.data.note:
            self.message(f"the data are {loaded.data.note}")
        if search.workers:
            self.console.print(f"hpsearch: starting {plural(search.workers, 'worker')}", soft_wrap=True)
        if (plan := search.strategy.plan(loaded.intervals, self.unit)) is not None:
            self.message(plan)
        if search.left_out:
            left_out = sum(search.left_out.values())
            self.message(f"{plural(left_out, 'grid point')} left out: {counted(search.left_out)}")
        if (best := stored.best_trial()) is not None:
            self.best = (best.value or 0.0, best.number)

    def counts(self, counts: dict[TrialState, int], limit: int, infeasible: int = 0) -> None:
        """Record the current number of trials in each state."""
        self.states, self.infeasible, self.limit = counts, infeasible, limit

    def started(self, task: Task, intervals_before: int) -> None:
        """Record that a trial has started."""
        self.rows[task.number] = _Row(task, intervals_before)

    def reported(self, number: int, report: IntervalReport) -> None:
        """Record a trial's progress."""
        row = self.rows[number]
        row.done = report.interval
        row.last = report.value

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        """Print how a trial ended."""
        row = self.rows.pop(number, None)
        self.finished_here += state != TrialState.FAIL
        value = outcome.best_value if state == TrialState.COMPLETE and outcome.reason != "diverged" else None
        if value is not None and self.measure.is_better(value, self.best and self.best[0]):
            self.best = (value, number)
        self.print_line(self.line(number, state, outcome, row.task.params if row else {}))

    def released(self, number: int) -> None:
        """Remove a trial that is no longer trained here."""
        self.rows.pop(number, None)

    def message(self, text: str) -> None:
        """Print a message."""
        self.console.print(Text(f"hpsearch: {text}"), soft_wrap=True, style="yellow")

    def tick(self) -> None:
        """Do nothing: lines need no refresh."""

    def print_line(self, line: Text) -> None:
        """Print one finished trial's line."""
        self.console.print(line, soft_wrap=True)

    def line(self, number: int, state: TrialState, outcome: Outcome, params: dict[str, object]) -> Text:
        """Return one finished trial as a line."""
        colour = {TrialState.COMPLETE: "green", TrialState.PRUNED: "dim", TrialState.FAIL: "red"}[state]
        if outcome.reason == INFEASIBLE:
            colour = "dim"
        text = Text(f"trial {number:>3} ", style=colour)
        if outcome.best_value is None:
            text.append(f"{outcome.reason}: {last_line(outcome.error)}")
            return text
        text.append(f"{self.measure.format(outcome.best_value)} ")
        text.append(f"{outcome.reason:<8} ")
        text.append(f"{plural(outcome.intervals, self.unit):>12} {outcome.seconds:6.1f} s  ")
        text.append(" ".join(f"{name}={short(value)}" for name, value in params.items()))
        return text

    def summary(self) -> str:
        """Return counts, best and time left in one line."""
        parts = self._parts()
        left = self.limit - self._finished()
        if self.finished_here and left > 0:
            parts.append(f"{duration((time.monotonic() - self.began) / self.finished_here * left)} left")
        return f"{self.name}: " + ", ".join(parts)

    def last_line(self, best: FrozenTrial | None, trained: float | None) -> str:
        """Return counts, best and times of a study whose run has ended.

        Other processes may have trained part of it: `best` is the study's best trial, `trained` the seconds of training
        in all of its trials; None if unknown.
        """
        if best is not None:
            self.best = (best.value or 0.0, best.number)
        parts = [*self._parts(), f"{duration(time.monotonic() - self.began)} here"]
        if trained is not None:
            parts.append(f"{duration(trained)} of training in all")
        return f"{self.name}: " + ", ".join(parts)

    def _finished(self) -> int:
        return sum(self.states.get(state, 0) for state in (TrialState.COMPLETE, TrialState.PRUNED))

    def _parts(self) -> list[str]:
        pruned, failed = (self.states.get(state, 0) for state in (TrialState.PRUNED, TrialState.FAIL))
        parts = [f"{self._finished()}/{self.limit} finished", f"{pruned} pruned", f"{failed - self.infeasible} failed"]
        if self.infeasible:
            parts.append(f"{self.infeasible} infeasible")
        if self.best is not None:
            parts.append(f"best {self.measure.format(self.best[0])} (trial {self.best[1]})")
        return parts


class RunTable(RunLines):
    """The same lines, with a live table of the running trials below them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.live = Live(console=console, auto_refresh=False, transient=True)
        self.refreshed = 0.0

    def __enter__(self) -> "RunTable":
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def tick(self) -> None:
        """Redraw, a few times a second at most."""
        if time.monotonic() - self.refreshed > REFRESH_SECONDS:
            self.refreshed = time.monotonic()
            self.live.update(self.table(), refresh=True)

    def print_line(self, line: Text) -> None:
        """Print one finished trial's line, cut to the terminal's width."""
        self.console.print(line, no_wrap=True, overflow="ellipsis")

    def table(self) -> Group:
        """Return the running trials and the summary."""
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(no_wrap=True, min_width=9)
        table.add_column(width=16)
        table.add_column(no_wrap=True, min_width=13)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for number, row in sorted(self.rows.items()):
            last = self.measure.format(row.last) if row.last is not None else "      "
            params = " ".join(f"{name}={short(value)}" for name, value in row.task.params.items())
            table.add_row(
                Text(f"trial {number:>3}"),
                ProgressBar(total=self.intervals, completed=row.done),
                Text(f"{row.done:>3}/{self.intervals} {last}"),
                Text(params, style="dim"),
            )
        return Group(table, Text(self.summary(), style="bold", no_wrap=True, overflow="ellipsis"))

"""The progress of `hpsearch compare`: a line per finished pair, and on a terminal the running ones below."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.errors import last_line
from hpsearch.search.comparison import Pair
from hpsearch.search.pair_processes import Watcher
from hpsearch.search.supervisor import End
from hpsearch.study import Study
from hpsearch.text import duration, plural


def compare_progress(console: Console, name: str, before: dict[Pair, int], budget: int, study: Study) -> "CompareLines":
    """Return the watcher for `console`: a table on a terminal, lines elsewhere.

    `before` has the intervals of the `budget` that each pair has trained already.
    """
    watcher = CompareTable if console.is_terminal else CompareLines
    return watcher(console, name, before, budget, study)


class CompareLines(Watcher):
    """One line per finished pair, and the messages."""

    def __init__(self, console: Console, name: str, before: dict[Pair, int], budget: int, study: Study) -> None:
        self.console = console
        self.name = name
        self.budget = budget
        self.unit = study.unit
        self.measure = study.measure
        self.finished = {pair for pair, intervals in before.items() if intervals >= budget}
        self.known = sum(before.values())
        self.running: dict[Pair, int] = {}
        self.best: dict[Pair, float] = {}
        self.before = before
        self.trained_here = 0
        self.failures: list[str] = []
        self.began = time.monotonic()

    def __enter__(self) -> "CompareLines":
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def pair_started(self, pair: Pair) -> None:
        """Record that a pair has started."""
        self.running[pair] = self.before[pair]

    def pair_reported(self, pair: Pair, value: float) -> None:
        """Record a pair's interval."""
        self.running[pair] += 1
        self.trained_here += 1
        if self.measure.is_better(value, self.best.get(pair)):
            self.best[pair] = value

    def pair_ended(self, pair: Pair, end: End, intervals: int, best: float | None) -> None:
        """Print a finished pair's line."""
        self.running.pop(pair, None)
        if end == "done":
            self.finished.add(pair)
            early = "" if intervals >= self.budget else ", its grid is finished"
            text = "-" if best is None else self.measure.format(best)
            self.line(f"{pair.name}  {plural(intervals, self.unit)}{early}  best {text}  ({self._progress()})")

    def pair_failed(self, pair: Pair, error: str) -> None:
        """Print a failed pair's line."""
        self.running.pop(pair, None)
        self.failures.append(f"{pair.name}: {error.strip()}")
        self.line(f"{pair.name}  failed: {last_line(error)}")

    def whole_repeats(self) -> set[int]:
        """Return the repeats whose pairs are all finished."""
        return {pair.repeat for pair in self.finished} - {pair.repeat for pair in self.before.keys() - self.finished}

    def _progress(self) -> str:
        return f"{len(self.finished)}/{len(self.before)}"

    def message(self, text: str) -> None:
        """Print a message."""
        self.console.print(Text(f"hpsearch: {text}"), soft_wrap=True, style="yellow")

    def tick(self) -> None:
        """Do nothing: lines need no refresh."""

    def line(self, text: str) -> None:
        """Print a line."""
        self.console.print(Text(text), soft_wrap=True)


class CompareTable(CompareLines):
    """The same lines, with the running pairs and a summary below them."""

    def __init__(self, console: Console, name: str, before: dict[Pair, int], budget: int, study: Study) -> None:
        super().__init__(console, name, before, budget, study)
        self.live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> "CompareTable":
        self.live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.live.stop()

    def tick(self) -> None:
        """Redraw."""
        table = Table.grid(padding=(0, 1))
        table.add_column(no_wrap=True)
        table.add_column(width=16)
        table.add_column(no_wrap=True)
        for pair, done in self.running.items():
            best = self.measure.format(self.best[pair]) if pair in self.best else ""
            bar = ProgressBar(total=self.budget, completed=done)
            table.add_row(Text(pair.name), bar, Text(f"{done:>4}/{self.budget} {best}"))
        self.live.update(Group(table, Text(self.summary(), style="bold")), refresh=True)

    def summary(self) -> str:
        """Return pairs, intervals and time left in one line."""
        total = len(self.before) * self.budget
        done = self.known + self.trained_here
        text = f"{self.name}: {self._progress()} pairs, {done:,} of {plural(total, self.unit)}"
        if self.trained_here:
            seconds = (time.monotonic() - self.began) / self.trained_here * (total - done)
            text += f", {duration(seconds)} left"
        return text

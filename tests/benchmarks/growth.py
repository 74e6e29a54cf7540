"""How the cost of a trial grows with the number of those before it.

    python tests/benchmarks/growth.py [trials] [sampler] [pruner] [--profile]

A supervisor runs a study of made-up curves whose reports come at once, so that all the time is its own: asking the
sampler, storing, judging, and what it looks up. Printed are the processor's milliseconds per trial and per report,
tenth by tenth of the study, and with `--profile` the functions with the most time of their own.
"""

import argparse
import cProfile
import io
import math
import pstats
import tempfile
import time
from collections import deque
from pathlib import Path

import optuna
from rich.console import Console

from hpsearch.executors import Ended, Event, Outcome, Reported, Task, Verdict
from hpsearch.progress import run_progress
from hpsearch.search.running import run
from hpsearch.search.search import Loaded, Search
from hpsearch.seeding import derive_seed
from hpsearch.study import load_study
from hpsearch.training import IntervalReport

STUDY = Path(__file__).parents[1] / "studies" / "tiny.py"
INTERVALS = 8


class MadeUp:
    """An executor of two slots that trains nothing: a trial's accuracy rises towards a value drawn from its seed."""

    slots = 2

    def __init__(self) -> None:
        self.ended: list[float] = []
        self.reports: list[int] = []
        self._ready: deque[Event] = deque()
        self._tops: dict[int, float] = {}
        self._intervals: dict[int, int] = {}
        self._best: dict[int, float] = {}

    def submit(self, task: Task) -> None:
        """Start a curve."""
        self._tops[task.number] = 0.5 + derive_seed(task.seed, "top") % 1000 / 2000
        self._intervals[task.number] = 0
        self._report(task.number)

    def _report(self, number: int) -> None:
        interval = self._intervals[number] = self._intervals[number] + 1
        accuracy = self._best[number] = self._tops[number] * (1 - math.exp(-interval / 2))
        report = IntervalReport(
            interval=interval,
            epoch=float(interval),
            step=interval,
            train={"loss": 1 - accuracy, "accuracy": accuracy},
            validation={"loss": 1 - accuracy, "accuracy": accuracy},
            learning_rate=0.1,
            seconds=0.01,
        )
        self._ready.append(Reported(number, report))

    def reply(self, number: int, verdict: Verdict) -> None:
        """Go on with a curve, or end it."""
        interval = self._intervals[number]
        if verdict == "continue" and interval < INTERVALS:
            self._report(number)
            return
        self.ended.append(time.process_time())
        self.reports.append(interval)
        self._ready.append(
            Ended(
                number,
                Outcome(
                    reason="pruned" if verdict == "prune" else "budget",
                    intervals=interval,
                    best_value=self._best[number],
                    best_interval=interval,
                ),
            )
        )

    def events(self, timeout: float) -> list[Event]:
        """Return one thing that happened."""
        return [self._ready.popleft()] if self._ready else []

    def stop(self) -> None:
        """There is nothing to stop."""

    def kill(self, number: int) -> None:
        """There is nothing to kill."""

    def close(self) -> None:
        """There is nothing to close."""


def main(trials: int, sampler: str, pruner: str, profile: bool) -> None:
    """Print the table."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study_file = load_study(str(STUDY))
    data = study_file.study.load_data()
    executor = MadeUp()
    with tempfile.TemporaryDirectory() as folder:
        search = Search.of(
            study_file,
            sampler=sampler,
            pruner=pruner,
            n_trials=trials,
            name="growth",
            storage=f"sqlite:///{folder}/growth.db",
            runs=Path(folder) / "runs",
        )
        loaded = Loaded.from_data(search, data)
        profiler = cProfile.Profile()
        began = time.process_time()
        if profile:
            profiler.enable()
        run(search, loaded, run_progress(Console(file=io.StringIO())), executor=executor)
        profiler.disable()
    print(f"{trials} trials of up to {INTERVALS} intervals, {sampler}, {pruner}")
    print(f"{'trials':>12} {'cpu ms/trial':>13} {'cpu ms/report':>14}")
    tenth = len(executor.ended) // 10
    for start in range(0, 10 * tenth, tenth):
        since = executor.ended[start - 1] if start else began
        milliseconds = 1000 * (executor.ended[start + tenth - 1] - since)
        reports = sum(executor.reports[start : start + tenth])
        print(f"{start:5} - {start + tenth:4} {milliseconds / tenth:13.1f} {milliseconds / reports:14.2f}")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
        pstats.Stats(profiler).sort_stats("cumtime").print_stats("hpsearch|optuna", 45)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("trials", nargs="?", type=int, default=1500)
    parser.add_argument("sampler", nargs="?", default="random")
    parser.add_argument("pruner", nargs="?", default="median")
    parser.add_argument("--profile", action="store_true")
    main(**vars(parser.parse_args()))

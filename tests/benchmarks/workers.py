"""What a second worker buys, and how much of the workers' time is not training.

    python tests/benchmarks/workers.py

The same random configurations of the lenet study, all epochs each (no pruner), are trained by one worker, by two, and
by two runs of one worker side by side, which share nothing but the machine: what those lose against one alone is the
hardware's doing. The three take turns, every one in a folder of its own; printed are medians over the rounds. Seconds
go from the first trial's start to the last one's end. Training is what the workers' own clocks gave to training and
evaluating intervals; the rest is asking the sampler, starting trials, saving, storing, and waiting at the end for the
other worker's last trial.
"""

import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from subprocess import DEVNULL

import torch

from hpsearch.results import open_results

TRIALS, ROUNDS = 16, 3
STUDY = Path(__file__).parents[2] / "studies" / "lenet.py"


def main() -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}; {TRIALS} trials")
    ways = {"1 worker": [1], "2 workers": [2], "1 and 1": [1, 1]}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    shares: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, runs in ways.items():
            rate, share = measure(runs)
            rates[way].append(rate)
            shares[way].append(share)
    alone = statistics.median(rates["1 worker"])
    print(f"{'':10} {'epochs/s':>9} {'against 1':>10} {'not training':>13}")
    for way in ways:
        rate, share = statistics.median(rates[way]), statistics.median(shares[way])
        print(f"{way:10} {rate:9.2f} {rate / alone:10.2f} {1 - share:13.1%}")


def measure(runs: list[int]) -> tuple[float, float]:
    """Run the study once for each number of workers in `runs`, all at once; return epochs/s and training share."""
    with tempfile.TemporaryDirectory() as folder:
        started = []
        for number, workers in enumerate(runs):
            here = Path(folder) / str(number)
            here.mkdir()
            options = ["--n-trials", str(TRIALS), "--workers", str(workers), "--sampler", "random", "--pruner", "none"]
            command = [sys.executable, "-m", "hpsearch", "run", "--study", str(STUDY), *options]
            process = subprocess.Popen(command, cwd=here, stdout=DEVNULL, stderr=DEVNULL)
            started.append((here, workers, process))
        rate, share = 0.0, 0.0
        for here, workers, process in started:
            if process.wait():
                raise SystemExit(f"a run ended with exit code {process.returncode}")
            results = open_results(str(STUDY), storage=f"sqlite:///{here}/hpsearch.db", runs=here / "runs")
            trials = results.trials
            seconds = (trials["ended"].max() - trials["started"].min()).total_seconds()
            rate += trials["intervals"].sum() / seconds
            share += trials["seconds"].sum() / (workers * seconds) / len(runs)
        return rate, share


if __name__ == "__main__":
    main()

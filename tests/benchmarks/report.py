"""How long `hpsearch report` and `hpsearch status` take: python tests/benchmarks/report.py [TRIALS].

Prints seconds, start-up included. The study is made up, with a history file for each trial as a run leaves it.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.command_line import environment
from support.finished_study import make_study

HEADER = "interval,epoch,step,train_loss,train_accuracy,validation_loss,validation_accuracy,learning_rate,seconds"
COMMANDS = (["status"], ["status", "--study", "tiny"], ["report", "--study", "tiny"], ["export", "--study", "tiny"])


def main(trials: int) -> None:
    """Print a line for each command."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reasons = ["budget", "pruned", "patience", "pruned", "diverged", "pruned", "failed"]
        stored = make_study(folder, [reasons[number % len(reasons)] for number in range(trials)])
        for trial in stored.optuna_study().get_trials(deepcopy=False):
            path = stored.folder / str(trial.number)
            path.mkdir()
            rows = [
                f"{step},{step},{68 * step},0.5,0.9,0.6,{accuracy},0.01,0.25"
                for step, accuracy in trial.intermediate_values.items()
            ]
            (path / "history.csv").write_text("\n".join([HEADER, *rows, ""]))
        for arguments in COMMANDS:
            began = time.perf_counter()
            command = [sys.executable, "-m", "hpsearch", *arguments]
            subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
            print(f"{trials:,} trials: hpsearch {' '.join(arguments)}: {time.perf_counter() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000)

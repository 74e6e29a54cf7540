"""Run the six example studies as a user would, with a kill -9 in the middle, and use their final files.

    python tests/examples.py [photos rare diabetes sequences finetune own_loop] [--trials 4]

For each: a run that is killed once in mid-epoch and goes on, compared with a run that was not, trial by trial and bit
by bit; then report, export, retrain; then the code on the model card, in a Python that cannot import hpsearch, on one
raw example. Prints a line each, and exits with 1 if anything differs. One worker, so that runs can be compared.
"""

import argparse
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
import torch

from hpsearch import Split, checkpoint
from hpsearch.study import load_study

STUDIES = Path(__file__).parents[1] / "studies"
NAMES = ("photos", "rare", "diabetes", "sequences", "finetune", "own_loop")
# What makes the file that the card's code reads: of a digit 7, of one that is no 8, and of the first patient.
RAW = {
    "photos": "import shutil; shutil.copy('{data}/photos/7/7-0.jpg', 'image.png')",
    "rare": "import pandas; from sklearn.datasets import load_digits\n"
    "load_digits(as_frame=True).frame.head(1).to_csv('rows.csv', index=False)",
    "diabetes": "import pandas; from sklearn.datasets import load_diabetes\n"
    "load_diabetes(as_frame=True, scaled=False).frame.head(1).to_csv('rows.csv', index=False)",
}


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run hpsearch in `folder`; raise if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "hpsearch", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def killed_run(folder: Path, arguments: list[str], history: Path) -> int:
    """Run until the second trial has trained an epoch, kill all of its processes, run again; return how many died."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpsearch", *arguments],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not history.exists() and process.poll() is None:
        time.sleep(0.01)
    # Within the next epoch.
    time.sleep(0.05)
    family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    command(folder, *arguments)
    return len(family)


def results(folder: Path, name: str) -> dict[int, object]:
    """Return all that is stored of each trial, and digests of the weights, without times."""
    stored = optuna.load_study(study_name=name, storage=f"sqlite:///{folder}/hpsearch.db")
    found: dict[int, object] = {}
    for trial in stored.trials:
        best = checkpoint.load(folder / "runs" / name / str(trial.number) / "best.pt")
        attrs = {key: trial.user_attrs.get(key) for key in ("reason", "intervals", "best_value", "best_interval")}
        weights = checkpoint.digest(best["model"])
        found[trial.number] = (trial.state, trial.params, trial.value, trial.intermediate_values, attrs, weights)
    return found


def first_of_the_test_split(folder: Path, name: str) -> Any:
    """Return an example as the final file takes it."""
    with contextlib.chdir(folder):
        data = load_study(name).study.load_data()
    if isinstance(data.test, Split):
        return (data.test.inputs if data.raw_test is None else data.raw_test)[:1]
    assert data.collate is not None
    assert data.test is not None
    return [*data.collate([data.test[0]])[0]]


def use(folder: Path, name: str) -> str:
    """Run the code on the card on a raw example; return what it printed, or the answer."""
    written = folder / "reports" / name / "retrain"
    (code,) = re.findall("```python\n(.*?)```", (written / "card.md").read_text(), re.DOTALL)
    if name in RAW:
        prepare = RAW[name].format(data=folder / "data")
        subprocess.run([sys.executable, "-c", prepare], cwd=written, check=True)
    else:
        torch.save(first_of_the_test_split(folder, name), written / "raw.pt")
        code = re.sub(r"^raw = .*", "raw = torch.load('raw.pt')", code, flags=re.MULTILINE)
    blocked = "import sys; sys.modules['hpsearch'] = None\n"
    shown = "\nprint(probabilities if 'probabilities' in globals() else predictions)"
    done = subprocess.run(
        [sys.executable, "-I", "-c", blocked + code + shown], cwd=written, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{name}: the card's code: {done.stderr}")
    return " ".join(done.stdout.split())


def main() -> int:
    """Run the examples; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--trials", type=int, default=4)
    options = parser.parse_args()
    os.environ["HPSEARCH_STUDIES"] = str(STUDIES)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    wrong = 0
    for name in options.names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as place:
            whole, cut = Path(place, "whole"), Path(place, "cut")
            arguments = ["run", "--study", name, "--n-trials", str(options.trials), "--workers", "1"]
            for folder in (whole, cut):
                folder.mkdir()
            command(whole, *arguments)
            died = killed_run(cut, arguments, cut / "runs" / name / "1" / "history.csv")
            same = results(whole, name) == results(cut, name)
            wrong += not same
            command(cut, "report", "--study", name)
            command(cut, "export", "--study", name, "--top", "1")
            test = command(cut, "retrain", f"best/{name}-1.json", "--seeds", "2", "--workers", "1").stdout
            (line,) = (line for line in test.splitlines() if line.startswith("Test"))
            answer = use(cut, name)
        print(
            f"{name}: {died} processes killed, then {'the same' if same else 'NOT THE SAME'} as undisturbed; {line}; "
            f"one raw example: {answer[:90]}; {time.monotonic() - began:.0f} s",
            flush=True,
        )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Optuna's own tools on a study of hpsearch: its command line and its visualisations."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import optuna
import pytest

from hpsearch.search.stored_study import StoredStudy
from support.command_line import states
from support.finished_study import make_study

REASONS: list[str | None] = [
    "budget",
    "pruned",
    "patience",
    "diverged",
    "budget",
    "failed",
    "target",
    *["budget"] * 9,
    None,
]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    """A study with trials of every kind in `hpsearch.db`."""
    return make_study(tmp_path_factory.mktemp("optuna"), REASONS)


@pytest.fixture(scope="module")
def database(stored: StoredStudy) -> Path:
    return Path(str(stored.storage.engine.url.database))


def optuna_command(database: Path, *arguments: str) -> str:
    """Run Optuna's command line on the database and return what it prints."""
    run = "import sys; from optuna.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", run, "--storage", f"sqlite:///{database}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_command_line_lists_the_study_and_its_trials(database: Path) -> None:
    (study,) = json.loads(optuna_command(database, "studies", "-f", "json"))
    assert study["name"] == "tiny"
    assert study["direction"] == ["MAXIMIZE"]
    assert study["n_trials"] == len(REASONS)
    assert optuna_command(database, "study-names").split() == ["tiny"]
    trials = json.loads(optuna_command(database, "trials", "--study-name", "tiny", "-f", "json"))
    assert [trial["number"] for trial in trials] == list(range(len(REASONS)))


def test_its_best_trial_is_ours(stored: StoredStudy, database: Path) -> None:
    best = json.loads(optuna_command(database, "best-trial", "--study-name", "tiny", "-f", "json"))
    ours = stored.best_trial()
    assert ours is not None
    assert best["number"] == ours.number
    assert best["value"] == {"validation accuracy": ours.value}


def test_its_ask_and_tell_add_a_trial_to_the_study(tmp_path: Path) -> None:
    make_study(tmp_path, ["budget"]).storage.engine.dispose()
    database = tmp_path / "hpsearch.db"
    space = json.dumps({"lr": json.loads(optuna.distributions.distribution_to_json(_LR))})
    asked = json.loads(optuna_command(database, "ask", "--study-name", "tiny", "--search-space", space, "-f", "json"))
    optuna_command(database, "tell", "--study-name", "tiny", "--trial-number", "1", "--values", "0.25")
    assert states(database, "tiny") == {"COMPLETE": 2}
    trials = optuna.load_study(study_name="tiny", storage=f"sqlite:///{database}").trials
    assert trials[1].params == asked["params"]
    assert trials[1].value == 0.25


def test_its_upgrade_finds_nothing_to_do(database: Path) -> None:
    optuna_command(database, "storage", "upgrade")


_LR = optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)

# Left out: the Pareto front and the hypervolume's history, which want several objectives, and the terminator's
# improvement, which wants a cross-validation's scores.
PLOTS = ["contour", "edf", "intermediate_values", "optimization_history", "parallel_coordinate", "param_importances"]
PLOTS += ["rank", "slice", "timeline"]


@pytest.mark.parametrize("plot", PLOTS)
# They are between Optuna's code and Matplotlib, whatever the study.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_its_visualisations_draw_the_study(stored: StoredStudy, plot: str) -> None:
    drawn: Any = getattr(optuna.visualization.matplotlib, f"plot_{plot}")(stored.optuna_study())
    axes = list(drawn.flat) if hasattr(drawn, "flat") else [drawn]
    assert any(ax.has_data() for ax in axes)
    plt.close("all")


def test_its_plotly_figures_draw_the_study(stored: StoredStudy) -> None:
    for plot in PLOTS:
        assert getattr(optuna.visualization, f"plot_{plot}")(stored.optuna_study()).data

"""Studies and trials of plain Optuna and of notebooks: reported and exported as far as they can be, else one line."""

from pathlib import Path

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from hpsearch import UsageError
from hpsearch.results import open_results
from hpsearch.results.configurations import read_configuration
from hpsearch.search.objective import make_objective
from hpsearch.study import load_study
from support import STUDIES
from support.finished_study import make_study
from support.in_process import hpsearch_here


@pytest.fixture(autouse=True)
def _quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_trials_of_ask_and_tell_are_shown_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = make_study(tmp_path, ["budget", "pruned", "failed"])
    study = stored.optuna_study()
    asked = study.ask()
    asked.suggest_float("other", 0, 1)
    asked.report(0.25, 1)
    asked.report(0.5, 2)
    study.tell(asked, 0.995)
    study.tell(study.ask(), state=TrialState.FAIL)
    assert hpsearch_here(tmp_path, "report", "--study", "tiny") == 0
    table = pd.read_csv(tmp_path / "reports/tiny/trials.csv").set_index("number")
    assert table.loc[3, ["best_value", "best_interval", "intervals"]].tolist() == [0.995, 2, 2]
    assert table.loc[3, "reason"] == "complete"
    assert table.loc[4, "reason"] == "failed"
    page = (tmp_path / "reports/tiny/summary.md").read_text()
    assert "| complete, by another tool | 1 | 2 |" in page
    # Its params are none of the recipe's, so it cannot be trained again.
    assert hpsearch_here(tmp_path, "export", "--study", "tiny", "--top", "2") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "trial 3 is left out: the params lack lr" in said
    assert read_configuration(tmp_path / "best/tiny-1.json").trial == 0


def test_a_study_of_a_notebook_is_reported_and_exported(tmp_path: Path) -> None:
    tiny = load_study(str(STUDIES / "tiny.py")).study
    storage = f"sqlite:///{tmp_path}/hpsearch.db"
    study = optuna.create_study(
        study_name="notebook", storage=storage, direction="maximize", pruner=optuna.pruners.NopPruner()
    )
    study.optimize(make_objective(tiny, tiny.load_data(), tmp_path / "runs/notebook"), n_trials=2)
    assert hpsearch_here(tmp_path, "report", "--study", "tiny", "--name", "notebook") == 0
    assert hpsearch_here(tmp_path, "export", "--study", "tiny", "--name", "notebook") == 0
    exported = read_configuration(tmp_path / "best/notebook-1.json")
    assert (exported.value, exported.params) == (study.best_value, study.best_params)
    assert exported.best_interval == max(
        study.best_trial.intermediate_values, key=lambda step: study.best_trial.intermediate_values[step]
    )
    frame = open_results(str(STUDIES / "tiny.py"), name="notebook", storage=storage).trials
    assert frame["best_value"].tolist() == [trial.value for trial in study.trials]
    assert hpsearch_here(tmp_path, "retrain", "best/notebook-1.json", "--seeds", "1", "--workers", "0") == 0


def test_a_study_without_reports_is_reported(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="plain", storage=f"sqlite:///{tmp_path}/hpsearch.db", direction="maximize")
    study.optimize(lambda trial: trial.suggest_float("x", -9, 9) * 100, n_trials=6)
    study.tell(study.ask(), float("-inf"))
    assert hpsearch_here(tmp_path, "report", "--study", "tiny", "--name", "plain") == 0
    with pytest.raises(UsageError, match="study plain has no complete trial to export"):
        hpsearch_here(tmp_path, "export", "--study", "tiny", "--name", "plain")


@pytest.mark.parametrize("command", ["report", "export"])
def test_what_cannot_be_reported_is_one_line(tmp_path: Path, command: str) -> None:
    storage = f"sqlite:///{tmp_path}/hpsearch.db"
    optuna.create_study(study_name="down", storage=storage, direction="minimize")
    optuna.create_study(study_name="two", storage=storage, directions=["minimize", "maximize"])
    with pytest.raises(UsageError, match=r"study down minimises, and the measure of tiny\.py is accuracy, maximised"):
        hpsearch_here(tmp_path, command, "--study", "tiny", "--name", "down")
    with pytest.raises(UsageError, match=r"study two has 2 objectives.*hpsearch dashboard shows it"):
        hpsearch_here(tmp_path, command, "--study", "tiny", "--name", "two")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_a_report_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    make_study(tmp_path, [])
    with pytest.raises(UsageError, match="has no trials yet"):
        hpsearch_here(tmp_path, "report", "--study", "tiny")
    assert not (tmp_path / "reports").exists()

"""The plain Optuna objective: it leaves nothing behind, repeats nothing old, and stores what a run stores."""

from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import torch

from hpsearch import Dataset, Split, Study, UsageError
from hpsearch.results import open_results
from hpsearch.search.objective import make_objective
from hpsearch.study import load_study
from support import STUDIES
from support.in_process import hpsearch_here

optuna.logging.set_verbosity(optuna.logging.ERROR)


def optimized(study: Study, data: Dataset, folder: str | Path, lr: float, seed: int = 0) -> optuna.trial.FrozenTrial:
    """Return the first trial, with step size `lr`, of a new Optuna study of one name."""
    made = optuna.create_study(direction="maximize", study_name="same name")
    made.enqueue_trial({"lr": lr})
    made.optimize(make_objective(study, data, folder, seed=seed), n_trials=1)
    return made.trials[0]


def test_it_returns_the_best_validation_accuracy(
    tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset
) -> None:
    trial = optimized(tiny_study(), few_digits, tmp_path, 0.1)
    assert trial.value == max(trial.intermediate_values.values())
    assert trial.user_attrs["reason"] == "budget"
    assert (trial.user_attrs["intervals"], trial.user_attrs["best_value"]) == (3, trial.value)
    assert {path.name for path in (tmp_path / "0").glob("*.pt")} == {"best.pt"}


def test_another_study_of_the_same_name_and_number_is_not_continued(
    tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset
) -> None:
    expected = optimized(tiny_study(), few_digits, tmp_path / "elsewhere", 1e-4)
    made = optuna.create_study(direction="maximize", study_name="same name")
    made.enqueue_trial({"lr": 0.5})
    # Interrupted after its second interval: the resume point stays.
    objective = make_objective(tiny_study(), few_digits, tmp_path)

    def interrupted(trial: optuna.Trial) -> float:
        class Stop(optuna.pruners.BasePruner):
            def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
                if trial.last_step == 2:
                    raise KeyboardInterrupt
                return False

        trial.study.pruner = Stop()
        return objective(trial)

    with pytest.raises(KeyboardInterrupt):
        made.optimize(interrupted, n_trials=1)
    assert (tmp_path / "0" / "last.pt").exists()
    found = optimized(tiny_study(), few_digits, tmp_path, 1e-4)
    assert (found.value, found.intermediate_values) == (expected.value, expected.intermediate_values)


def test_it_leaves_torchs_threads_as_they_were(
    tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset
) -> None:
    torch.set_num_threads(2)
    try:
        optimized(tiny_study(), few_digits, str(tmp_path), 0.1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_a_seed_makes_a_difference(tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset) -> None:
    first, other = (optimized(tiny_study(), few_digits, tmp_path / str(seed), 0.1, seed) for seed in (0, 1))
    assert first.intermediate_values != other.intermediate_values


def test_divergence_is_the_worst_value(tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset) -> None:
    trial = optimized(tiny_study(), few_digits, tmp_path, 1e9)
    assert (trial.state.name, trial.value, trial.user_attrs["reason"]) == ("COMPLETE", 0.0, "diverged")


def test_a_study_that_minimizes_is_refused(
    tmp_path: Path, tiny_study: Callable[..., Study], few_digits: Dataset
) -> None:
    objective = make_objective(tiny_study(), few_digits, tmp_path)
    for made in (optuna.create_study(), optuna.create_study(directions=["maximize", "maximize"])):
        with pytest.raises(UsageError, match='direction="maximize"'):
            made.optimize(objective, n_trials=1)
    assert not list(tmp_path.iterdir())


def test_its_studies_can_be_read_and_reported_as_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits8: Dataset
) -> None:
    storage, study_file = f"sqlite:///{tmp_path}/hpsearch.db", load_study(str(STUDIES / "limited.py"))
    made = optuna.create_study(study_name="notebook", storage=storage, direction="maximize")
    for hidden in (8, 32):
        made.enqueue_trial({"hidden": hidden, "lr": 0.1})
    made.optimize(make_objective(study_file.study, digits8, str(tmp_path / "runs" / "notebook")), n_trials=2)
    results = open_results(str(study_file.path), name="notebook", storage=storage, runs=tmp_path / "runs")
    assert list(results.trials["state"]) == ["complete", "infeasible"]
    assert list(results.history["validation_accuracy"]) == list(made.trials[0].intermediate_values.values())
    assert results.history["train_loss"].notna().all()
    model = results.model(results.best)
    assert isinstance(digits8.validation, Split)
    with torch.no_grad():
        right = (model(digits8.validation.inputs).argmax(1) == digits8.validation.targets).double().mean().item()
    assert right == pytest.approx(made.best_value)
    monkeypatch.setenv("HPSEARCH_STORAGE", storage)
    assert hpsearch_here(tmp_path, "report", "--study", "limited", "--name", "notebook") == 0
    assert "1 complete, 1 infeasible" in (tmp_path / "reports" / "notebook" / "summary.md").read_text()
    hpsearch_here(tmp_path, "export", "--study", "limited", "--name", "notebook")
    assert (tmp_path / "best" / "notebook-1.json").exists()

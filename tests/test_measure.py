"""Studies of other measures than accuracy, from the run to the final model."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score
from torch import Tensor

from hpsearch import Dataset, EarlyStopping, Recipe, Space, Split, Study, UsageError, import_torchvision
from hpsearch.baseline import baseline_of
from hpsearch.executors.task import _report
from hpsearch.measure import ACCURACY, Measure
from hpsearch.meters import class_numbers, measure_of
from hpsearch.results.results import open_results
from hpsearch.results.retrain import evaluate_once
from hpsearch.search import Search, run
from hpsearch.search.fingerprint import describe_study
from hpsearch.search.objective import make_objective
from hpsearch.stopping import Stopper
from hpsearch.study import StudyFile, load_study
from support import STUDIES
from support.in_process import exit_code_here, hpsearch_here

REGRESSION = str(STUDIES / "regression.py")


def error_rate(outputs: Tensor, targets: Tensor) -> float:
    """Return one minus the accuracy."""
    predicted, true = class_numbers(outputs, targets)
    return float((predicted != true).double().mean())


ERROR = Measure(name="error", maximize=False, low=0.0, high=1.0, targets="classes", function=error_rate)


def trials_of(study_file: StudyFile, folder: Path, **settings: Any) -> list[optuna.trial.FrozenTrial]:
    search = Search.of(study_file, storage=f"sqlite:///{folder}/hpsearch.db", runs=folder / "runs", **settings)
    return run(search).stored.optuna_study().get_trials()


@pytest.mark.parametrize(
    ("sampler", "pruner"),
    [
        ("tpe:n_startup_trials=4", "hyperband"),
        ("random", "asha:reduction_factor=2"),
        ("random", "median"),
        ("tpe", "patient:patience=1,wrapped=percentile"),
        ("nsga2:population_size=4", "none"),
    ],
)
def test_minimising_the_error_is_maximising_the_accuracy(tmp_path: Path, sampler: str, pruner: str) -> None:
    """Every sampler, pruner and rule must turn round: the same params, intervals and reasons come out."""
    found = []
    for measure in (ACCURACY, ERROR):
        study_file = load_study(str(STUDIES / "tiny.py"))
        # Patience, but no target, of which both directions have their own.
        rules = replace(study_file.study.early_stopping, target=None, patience=3)
        study = replace(study_file.study, measure=measure, early_stopping=rules)
        folder = tmp_path / measure.name
        folder.mkdir()
        settings = {"sampler": sampler, "pruner": pruner, "n_trials": 14}
        trials = trials_of(replace(study_file, study=study), folder, **settings)
        sign = measure.sign
        found.append(
            [
                (
                    trial.params,
                    trial.state,
                    {key: trial.user_attrs.get(key) for key in ("reason", "intervals", "best_interval")},
                    pytest.approx((trial.value or 0.0) if sign == 1 else 1 - (trial.value or 0.0), abs=1e-12),
                )
                for trial in trials
            ]
        )
    for mine, theirs in zip(*found, strict=True):
        assert mine[:3] == theirs[:3]
        assert mine[3].expected == theirs[3]
    assert len({trial[1] for trial in found[0]}) > 1 or pruner == "none"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the regression has been run, reported, exported and retrained."""
    folder = tmp_path_factory.mktemp("regression")
    for command in (
        ["run", "--study", REGRESSION, "--workers", "0"],
        ["report", "--study", REGRESSION],
        ["export", "--study", REGRESSION, "--top", "2"],
        ["retrain", "best/regression-1.json", "--study", REGRESSION, "--seeds", "2", "--workers", "0"],
    ):
        assert hpsearch_here(folder, *command) == 0
    return folder


def test_the_best_of_a_regression_is_its_lowest_error(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = open_results(REGRESSION, storage=f"sqlite:///{finished}/hpsearch.db", runs=finished / "runs")
    complete = results.trials[results.trials["state"] == "complete"]
    assert results.best == complete["value"].idxmin()
    history = results.history[results.history["number"] == results.best]
    assert complete["value"].min() == history["validation_mse"].min()
    columns = {f"{split}_{name}" for split in ("train", "validation") for name in ("loss", "mse", "r2", "mae")}
    assert columns <= set(history.columns)
    data = results.data
    assert isinstance(data.validation, Split)
    # The best weights are those of the best interval, by scikit-learn.
    outputs = results.model(results.best)(data.validation.inputs).detach()[:, 0]
    assert mean_squared_error(data.validation.targets, outputs) == pytest.approx(complete["value"].min(), rel=1e-5)
    last = history.iloc[-1]
    assert last["train_r2"] <= 1
    assert exit_code_here(finished, "status", "--study", "regression") == 0
    assert "validation MSE" in capsys.readouterr().out


def test_a_regression_that_diverges_has_the_worst_value(finished: Path) -> None:
    results = open_results(REGRESSION, storage=f"sqlite:///{finished}/hpsearch.db", runs=finished / "runs")
    diverged = results.trials[results.trials["state"] == "diverged"]
    assert len(diverged) >= 1
    assert (diverged["value"] == math.inf).all()
    assert results.best not in diverged.index


def test_the_page_names_the_measure(finished: Path) -> None:
    page = (finished / "reports/regression/summary.md").read_text()
    assert "| measure | MSE, minimised, also R2, also MAE |" in page
    assert "| trial | validation MSE |" in page
    assert "| baseline | always answering the mean, " in page
    assert "accuracy" not in page


def test_a_regression_is_retrained_and_tested(finished: Path) -> None:
    folder = finished / "reports/regression/retrain"
    numbers = pd.read_csv(folder / "predictions.csv")
    result = json.loads((folder / "result.json").read_text())
    for name, function in (("mse", mean_squared_error), ("mae", mean_absolute_error), ("r2", r2_score)):
        assert result[f"test_{name}"] == pytest.approx(function(numbers["true"], numbers["predicted"]), rel=1e-6)
    low, high = result["test_mse_95"]
    assert low < result["test_mse"] < high
    card = (folder / "card.md").read_text()
    assert f"**Test MSE {measure_of('MSE').format(result['test_mse'])}**" in card
    assert "residuals.png" in card
    assert (folder / "residuals.png").exists()
    assert "accuracy" not in card
    # Near what least squares find.
    data = load_study(REGRESSION).study.load_data()
    assert isinstance(data.train, Split)
    assert isinstance(data.test, Split)
    best = LinearRegression().fit(data.train.inputs, data.train.targets).predict(data.test.inputs)
    nearly = mean_squared_error(data.test.targets, best)
    assert nearly < result["test_mse"] < nearly + 0.05 * float(data.test.targets.var())


def test_strategies_are_compared_by_the_lowest(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compare", "--study", REGRESSION, "--strategies", "random,tpe", "--repeats", "2", "--epoch-budget", "16"]
    assert hpsearch_here(finished, *command, "--workers", "1") == 0
    assert "The lowest mean best validation MSE is" in capsys.readouterr().out
    repeats = pd.read_csv(finished / "reports/regression/compare_repeats.csv")
    curves = pd.read_csv(finished / "reports/regression/compare_curves.csv")
    for (strategy, repeat), rows in curves.groupby(["strategy", "repeat"]):
        chosen = repeats[(repeats["strategy"] == strategy) & (repeats["repeat"] == repeat)].iloc[0]
        assert chosen["best"] == rows["mse"].min() == rows["best"].iloc[-1]
        assert rows["best"].is_monotonic_decreasing
    for _, rows in repeats.groupby("repeat"):
        assert rows.sort_values("best")["rank"].is_monotonic_increasing


def test_a_study_goes_on_with_its_own_measure_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "regression.py"
    text = Path(REGRESSION).read_text()
    study.write_text(text)
    command = ["run", "--study", str(study), "--n-trials", "2", "--workers", "0"]
    assert hpsearch_here(tmp_path, *command) == 0
    study.write_text(text.replace('measure="MSE", also=["R2", "MAE"]', 'measure="MAE"'))
    assert exit_code_here(tmp_path, *command) == 2
    assert "training measure was MSE, minimised, is now MAE, minimised" in capsys.readouterr().err
    study.write_text(text.replace('measure="MSE", also=["R2", "MAE"]', 'measure="R2"'))
    assert exit_code_here(tmp_path, *command) == 2
    assert "MSE" in capsys.readouterr().err
    # Other measures may be recorded beside it at any time.
    study.write_text(text.replace('also=["R2", "MAE"]', 'also=["RMSE"]'))
    command[command.index("2")] = "3"
    assert hpsearch_here(tmp_path, *command) == 0


def test_an_objective_minimises(tmp_path: Path) -> None:
    definition = load_study(REGRESSION).study
    objective = make_objective(definition, definition.load_data(), tmp_path)
    study = optuna.create_study(direction="minimize")
    study.optimize(objective, n_trials=2)
    for trial in study.trials:
        diverged = trial.user_attrs["reason"] == "diverged"
        assert trial.value == (math.inf if diverged else trial.user_attrs["best_value"])
    with pytest.raises(UsageError, match='the objective is MSE: create the study with direction="minimize"'):
        optuna.create_study(direction="maximize").optimize(objective, n_trials=1)


def test_patience_and_target_turn_round() -> None:
    rules = EarlyStopping(target=0.5, patience=2, min_improvement=0.1)
    mse = measure_of("MSE")
    for values, expected in (
        # 0.95 is no improvement of a tenth on 1; nor is 0.91 twice in a row.
        ([1.0, 0.95, 0.91], [None, None, "patience"]),
        ([1.0, 0.95, 0.89, 0.85, 0.81], [None, None, None, None, "patience"]),
        ([1.0, 0.5], [None, "target"]),
        ([3.0, 0.51, 0.5], [None, None, "target"]),
    ):
        stopper = Stopper(rules, mse)
        assert [stopper.update(value, value) for value in values] == expected
    # Both the training and the validation examples have to reach it.
    assert Stopper(rules, mse).update(0.9, 0.1) is None
    assert Stopper(rules, mse).update(0.1, 0.9) is None
    # Below zero, an improvement by a tenth is one by a tenth of the size.
    scores = Stopper(EarlyStopping(patience=1, min_improvement=0.1), measure_of("R2"))
    assert [scores.update(value, value) for value in (-1.0, -0.85, -0.8)] == [None, None, "patience"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"early_stopping": EarlyStopping(target=-1.0)}, r"target is a value of MSE in \[0, inf\), got -1.0"),
        ({"also": ["MSE"]}, "measure mse is given twice"),
        ({"also": "R2"}, "also must be a list of measures, got 'R2'"),
        ({"measure": "accuracy"}, "train.targets are numbers such as"),
        ({"also": ["accuracy"]}, "train.targets are numbers such as"),
    ],
)
def test_a_study_with_a_measure_that_does_not_fit_is_refused(settings: dict[str, Any], message: str) -> None:
    study = load_study(REGRESSION).study
    with pytest.raises(UsageError, match=message):
        replace(study, **settings).load_data()


def test_the_mean_is_the_baseline_of_numbers() -> None:
    data = load_study(REGRESSION).study.load_data()
    assert isinstance(data.train, Split)
    assert isinstance(data.validation, Split)
    mean = torch.full((40,), float(data.train.targets.mean()))
    found = baseline_of(data, measure_of("MSE"))
    assert found is not None
    assert found.value == pytest.approx(mean_squared_error(data.validation.targets, mean), rel=1e-6)
    assert found.beats(found.value + 1)
    assert not found.beats(found.value - 1)


def test_the_classes_shares_have_an_auroc_of_a_half() -> None:
    targets = torch.tensor([0] * 30 + [1] * 2)
    split = Split(torch.zeros(32, 1), targets)
    data = Dataset(train=split, validation=split, test=None, classes=("no", "yes"))
    found = baseline_of(data, measure_of("AUROC"))
    assert found is not None
    assert found.value == 0.5
    assert found.beats(0.376)


def test_uneven_classes_by_auroc_are_not_by_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The trial with the highest accuracy predicts no positive at all; the best by AUROC finds them."""
    (tmp_path / "uneven.py").write_text(UNEVEN)
    assert hpsearch_here(tmp_path, "run", "--study", "uneven.py", "--workers", "0") == 0
    assert "validation AUROC" in capsys.readouterr().out
    results = open_results(
        str(tmp_path / "uneven.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs"
    )
    assert results.trials.loc[results.best, "params.use"] == "signal"
    last = results.history.groupby("number")["validation_accuracy"].max()
    assert last.max() == pytest.approx(0.95)
    hpsearch_here(tmp_path, "check", "--study", "uneven.py")
    assert "uneven classes" in capsys.readouterr().out


UNEVEN = '''"""One positive in twenty; a model sees the signal or noise."""
import torch
from torch import nn
from hpsearch import Adam, BinaryCrossEntropy, Dataset, Recipe, Split, Study

class One(nn.Module):
    def __init__(self, column):
        super().__init__()
        self.column, self.linear = column, nn.Linear(1, 1)
    def forward(self, inputs):
        return self.linear(inputs[:, self.column : self.column + 1])

def recipe(space):
    column = space.choice("use", {"noise": 0, "signal": 1})
    return Recipe(model=One(column), optimizer=Adam(lr=0.02), loss=BinaryCrossEntropy(), batch_size=50)

def dataset():
    generator = torch.Generator().manual_seed(0)
    targets = (torch.arange(400) % 20 == 0).long()
    inputs = torch.randn(400, 2, generator=generator)
    inputs[:, 1] += 1.5 * targets
    return Dataset(train=Split(inputs[:200], targets[:200]), validation=Split(inputs[200:], targets[200:]), test=None,
                   classes=("no", "yes"))

study = Study(recipe=recipe, dataset=dataset, measure="AUROC", also=["accuracy"], epochs=10, n_trials=4,
              sampler="random", pruner="none")
'''


def test_a_report_of_an_earlier_version_is_read() -> None:
    """Its resume points hold lists, of accuracies."""
    report = _report([3, 3.0, 12, 0.5, 0.8, 0.6, 0.75, 0.1, 2.5])
    assert report.value == 0.75
    assert report.as_row() == {
        "interval": 3,
        "epoch": 3.0,
        "step": 12,
        "train_loss": 0.5,
        "validation_loss": 0.6,
        "train_accuracy": 0.8,
        "validation_accuracy": 0.75,
        "learning_rate": 0.1,
        "seconds": 2.5,
    }


def test_the_loss_is_a_measure(tmp_path: Path) -> None:
    study_file = load_study(str(STUDIES / "tiny.py"))
    study = replace(study_file.study, measure="loss", early_stopping=EarlyStopping())
    trials = trials_of(replace(study_file, study=study), tmp_path, n_trials=3, sampler="random", pruner="none")
    for trial in trials:
        assert trial.user_attrs["best_value"] == min(trial.intermediate_values.values())


def recipe_of_nothing(space: Space) -> Recipe:
    raise AssertionError("not called")


def test_measures_are_resolved_when_a_study_is_made() -> None:
    study = Study(recipe=recipe_of_nothing, dataset=lambda: None, measure="auroc", also=("accuracy",))  # type: ignore[arg-type, return-value]
    assert [measure.name for measure in study.measures] == ["AUROC", "accuracy"]


def test_results_of_another_measure_are_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "regression.py"
    text = Path(REGRESSION).read_text()
    study.write_text(text)
    assert hpsearch_here(tmp_path, "run", "--study", str(study), "--n-trials", "2", "--workers", "0") == 0
    study.write_text(text.replace('measure="MSE", also=["R2", "MAE"]', 'measure="MAE", also=["MSE"]'))
    assert exit_code_here(tmp_path, "report", "--study", str(study)) == 2
    assert "study regression is of MSE, minimised, and the measure of regression.py is MAE" in capsys.readouterr().err


def test_a_metrics_options_belong_to_the_study(tmp_path: Path) -> None:
    import_torchvision()
    classification = pytest.importorskip("torchmetrics.classification")
    texts = []
    for beta in (0.5, 2.0, 2.0):
        study_file = load_study(str(STUDIES / "tiny.py"))
        study = replace(study_file.study, measure=classification.MulticlassFBetaScore(beta=beta, num_classes=10))
        texts.append(describe_study(replace(study_file, study=study), None, 0)["training"]["measure"])
    assert texts[0] != texts[1] == texts[2]


def test_targets_that_the_loss_ignores_are_no_second_class() -> None:
    split = Split(torch.zeros(4, 1), torch.tensor([-100, 2, 2, 0]))
    assert baseline_of(Dataset(train=split, validation=split, test=None, classes=("a", "b", "c"))) is None


def test_a_users_measure_need_not_take_made_up_outputs() -> None:
    split = Split(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]))
    own = Measure(name="own", maximize=True, targets="classes", function=lambda outputs, targets: outputs.shape[2])
    assert baseline_of(Dataset(train=split, validation=split, test=None, classes=("a", "b")), own) is None


@pytest.mark.parametrize(
    ("measure", "also", "outputs", "targets", "kind"),
    [
        ("accuracy", ["MSE"], 1, torch.tensor([0.0, 1.0] * 10), "classes"),
        ("loss", [], 2, torch.randn(20, 1), "numbers"),
    ],
)
def test_the_test_set_is_measured_whatever_the_outputs(
    measure: str, also: list[str], outputs: int, targets: Tensor, kind: str
) -> None:
    split = Split(torch.randn(20, 3), targets)
    classes = ("no", "yes") if kind == "classes" else ()
    data = Dataset(train=split, validation=split, test=split, classes=classes)
    study = Study(recipe=recipe_of_nothing, dataset=lambda: data, measure=measure, also=also)
    found = evaluate_once(study, torch.nn.Linear(3, outputs), lambda outputs, targets: (outputs**2).mean(), data)
    assert (found.confusion is not None) == (kind == "classes")
    assert math.isfinite(found.value)
    assert found.low <= found.value <= found.high

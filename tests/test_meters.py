"""Measures against torchmetrics on the same outputs and, for what it does not tell, against counts by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hpsearch import UsageError, import_torchvision
from hpsearch.measure import ACCURACY, Measure
from hpsearch.meters import MEASURES, check_targets, class_numbers, make_meter, measure_of

CPU = torch.device("cpu")


def value(measure: Any, outputs: Tensor, targets: Tensor, batch: int = 7) -> float:
    """Return a measure, computed in batches."""
    meter = make_meter(measure_of(measure), CPU)
    for start in range(0, len(targets), batch):
        meter.update(outputs[start : start + batch], targets[start : start + batch])
    return meter.compute()


def classes(count: int, *, examples: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return outputs that are better than chance, and class numbers, very uneven."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.tensor([0.5**number for number in range(count)])
    targets = torch.multinomial(weights, examples, replacement=True, generator=generator)
    targets[:count] = torch.arange(count)
    return torch.randn(examples, count, generator=generator) + torch.nn.functional.one_hot(targets, count), targets


def numbers(*shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    true = torch.randn(*shape, generator=generator) * 3 + 5
    return true + torch.randn(*shape, generator=generator), true


@pytest.fixture(scope="module")
def torchmetrics() -> Any:
    # torchmetrics imports torchvision.
    import_torchvision()
    return pytest.importorskip("torchmetrics")


@pytest.mark.parametrize("count", [3, 8])
@pytest.mark.parametrize(
    ("name", "metric", "options"),
    [
        ("accuracy", "MulticlassAccuracy", {"average": "micro"}),
        ("balanced accuracy", "MulticlassAccuracy", {"average": "macro"}),
        ("macro F1", "MulticlassF1Score", {"average": "macro"}),
        ("AUROC", "MulticlassAUROC", {"average": "macro"}),
        ("average precision", "MulticlassAveragePrecision", {"average": "macro"}),
        ("top-2 accuracy", "MulticlassAccuracy", {"average": "micro", "top_k": 2}),
    ],
)
def test_classes_as_torchmetrics(torchmetrics: Any, name: str, metric: str, options: Any, count: int) -> None:
    outputs, targets = classes(count)
    reference = getattr(torchmetrics.classification, metric)(num_classes=count, **options)
    expected = float(reference(outputs.softmax(1), targets))
    assert value(name, outputs, targets) == pytest.approx(expected, abs=1e-6)
    # The user's own metric of torchmetrics gives the same, whatever the batches.
    for batch in (1, 7, 200):
        assert value(reference, outputs, targets, batch) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("accuracy", "BinaryAccuracy"),
        ("F1", "BinaryF1Score"),
        ("AUROC", "BinaryAUROC"),
        ("average precision", "BinaryAveragePrecision"),
    ],
)
@pytest.mark.parametrize("form", ["(N,)", "(N, 1)", "(N, 2)", "signs", "floats"])
def test_two_classes_as_torchmetrics(torchmetrics: Any, name: str, metric: str, form: str) -> None:
    """One output is the logit of the second class; targets may be 0 and 1 or -1 and 1, of any type."""
    two, targets = classes(2)
    logit = two[:, 1] - two[:, 0]
    reference = getattr(torchmetrics.classification, metric)()
    expected = float(reference(logit.sigmoid(), targets))
    outputs = {"(N, 1)": logit[:, None], "(N, 2)": two}.get(form, logit)
    given = {"(N, 1)": targets[:, None], "signs": 2 * targets - 1, "floats": targets.float()}.get(form, targets)
    assert value(name, outputs, given) == pytest.approx(expected, abs=1e-6)
    assert value(reference, outputs, given) == pytest.approx(expected, abs=1e-6)


def test_logits_that_all_lie_in_the_unit_interval_are_logits(torchmetrics: Any) -> None:
    """torchmetrics takes a batch of them for probabilities, and other batches for logits."""
    logits, targets = torch.tensor([0.4, 0.6, 3.0, -2.0]), torch.tensor([0, 1, 1, 0])
    metric = torchmetrics.classification.BinaryAccuracy()
    assert value(metric, logits, targets, batch=2) == value("accuracy", logits, targets) == 0.75


@pytest.mark.parametrize(
    ("name", "metric"),
    [("MSE", "MeanSquaredError"), ("MAE", "MeanAbsoluteError"), ("R2", "R2Score")],
)
@pytest.mark.parametrize("shape", [(200,), (200, 1), (200, 3)])
def test_numbers_as_torchmetrics(torchmetrics: Any, name: str, metric: str, shape: tuple[int, ...]) -> None:
    outputs, targets = numbers(*shape)
    # One number for each example and output.
    several = {"num_outputs": 3} if metric == "MeanSquaredError" and shape[1:] == (3,) else {}
    reference = getattr(torchmetrics.regression, metric)(**several)
    squeezed = [part.squeeze(1) if shape[1:] == (1,) else part for part in (outputs, targets)]
    expected = float(reference(*squeezed).mean())
    assert value(name, outputs, targets) == pytest.approx(expected, rel=1e-5)
    if shape[1:] != (3,):
        # (N, 1) against (N,) is not broadcast to (N, N).
        assert value(name, outputs.reshape(-1, 1), targets.reshape(-1)) == pytest.approx(expected, rel=1e-5)
        assert value(reference, outputs.reshape(-1, 1), targets.reshape(-1)) == pytest.approx(expected, rel=1e-5)


def test_rmse_is_the_root() -> None:
    outputs, targets = numbers(50)
    assert value("RMSE", outputs, targets) == pytest.approx(math.sqrt(value("MSE", outputs, targets)))


def test_labels_as_torchmetrics(torchmetrics: Any) -> None:
    outputs, _ = numbers(100, 4)
    labels = (torch.rand(100, 4, generator=torch.Generator().manual_seed(2)) > 0.6).float()
    metric = torchmetrics.classification.MultilabelF1Score(num_labels=4)
    logits = outputs - 5
    assert value(metric, logits, labels) == pytest.approx(float(metric(logits.sigmoid(), labels.long())))


def test_positions_are_answers() -> None:
    outputs, targets = torch.randn(5, 3, 4, 4), torch.randint(3, (5, 4, 4))
    flat = outputs.permute(0, 2, 3, 1).reshape(-1, 3), targets.flatten()
    for name in ("accuracy", "macro F1", "AUROC"):
        assert value(name, outputs, targets, batch=2) == pytest.approx(value(name, *flat))


def test_probabilities_as_targets_name_the_likeliest_class() -> None:
    outputs, targets = classes(3)
    shares = torch.nn.functional.one_hot(targets, 3) * 0.8 + 0.2 / 3
    assert value("macro F1", outputs, shares) == value("macro F1", outputs, targets)


def test_a_measure_of_ones_own_gets_everything_at_once() -> None:
    def spearman(outputs: Tensor, targets: Tensor) -> float:
        ranks = [np.argsort(np.argsort(part.numpy())) for part in (outputs, targets)]
        return float(np.corrcoef(*ranks)[0, 1])

    outputs, targets = numbers(60)
    own = Measure(name="Spearman", maximize=True, low=-1.0, high=1.0, function=spearman)
    assert value(own, outputs, targets) == pytest.approx(spearman(outputs, targets))


def test_outputs_that_are_not_numbers_have_no_measure(torchmetrics: Any) -> None:
    outputs, targets = classes(2)
    outputs[3] = math.nan
    for measure in ("AUROC", "F1", torchmetrics.classification.BinaryAUROC()):
        assert math.isnan(value(measure, outputs, targets))


def test_one_class_alone_has_no_auroc(torchmetrics: Any) -> None:
    """torchmetrics would give 0, which no model has earned."""
    outputs, targets = torch.randn(10), torch.zeros(10, dtype=torch.int64)
    for measure in ("AUROC", "average precision", torchmetrics.classification.BinaryAUROC()):
        assert math.isnan(value(measure, outputs, targets)), measure


def test_directions_and_bounds(torchmetrics: Any) -> None:
    minimised = {name for name, measure in MEASURES.items() if not measure.maximize}
    assert minimised == {"loss", "mse", "rmse", "mae"}
    assert (measure_of("R2").worst, measure_of("MSE").worst, measure_of("AUROC").worst) == (-math.inf, math.inf, 0.0)
    found = measure_of(torchmetrics.regression.MeanSquaredError())
    assert (found.name, found.maximize, found.low, found.high) == ("MeanSquaredError", False, 0.0, math.inf)
    found = measure_of(torchmetrics.classification.BinaryAUROC())
    assert (found.name, found.maximize, found.low, found.high) == ("BinaryAUROC", True, 0.0, 1.0)


@pytest.mark.parametrize("name", ["macro F1", "macro_f1", "Macro-F1", "top-5 accuracy", "top_5_accuracy", "mse"])
def test_names_in_any_spelling(name: str) -> None:
    assert measure_of(name).column == name.lower().replace("-", "_").replace(" ", "_")


class NoDirection:
    update = compute = reset = print


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("acuracy", "there is no measure 'acuracy': give one of accuracy, loss, .*, top-5 accuracy"),
        (3, "must be a name, a metric of torchmetrics .* got 3"),
        (NoDirection, "must be a name, a metric"),
        (NoDirection(), "NoDirection does not say whether higher is better: give Measure"),
    ],
)
def test_what_is_no_measure_is_refused(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        measure_of(given)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "name must be a text of one line"),
        ({"name": "a/b"}, "name must be a text of one line without /"),
        ({"maximize": "yes"}, "maximize must be True or False, got 'yes'"),
        ({"low": 1.0, "high": 0.0}, "low must be below high"),
        ({"function": print, "metric": NoDirection()}, "not both"),
    ],
)
def test_a_wrong_measure_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Measure(**{"name": "own", "maximize": True, **fields})


@pytest.mark.parametrize(
    ("measure", "targets", "message"),
    [
        ("accuracy", torch.tensor([151.0, 75.0]), "are numbers such as 151: give Study\\(measure='MSE'\\)"),
        ("AUROC", torch.tensor([[0.5, 3.0], [1.0, 2.0]]), "are numbers such as 0.5"),
        ("accuracy", torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), "several of 3 labels .*MultilabelF1Score"),
        ("MSE", torch.tensor([0, 1]), "train.targets are int64, which name classes: give numbers as float32"),
        ("MSE", torch.tensor([0.0, math.nan]), "hold nan"),
        ("AUROC", torch.tensor([0, 0, 0]), "needs every class among the validation examples, and 'b' is not"),
    ],
)
def test_targets_that_do_not_fit_are_refused(measure: str, targets: Tensor, message: str) -> None:
    split = "validation" if "validation" in message else "train"
    with pytest.raises(UsageError, match=message):
        check_targets(measure_of(measure), targets, ("a", "b"), split)


@pytest.mark.parametrize(
    "targets",
    [
        torch.tensor([0, 1]),
        torch.tensor([-1, 1]),
        torch.tensor([[0.0], [1.0]]),
        torch.tensor([-1.0, 1.0]),
        torch.tensor([[0.25, 0.75], [1.0, 0.0]]),
        torch.tensor([True, False]),
    ],
)
def test_classes_of_every_form_fit(targets: Tensor) -> None:
    check_targets(ACCURACY, targets, ("a", "b"), "train")


def test_a_measure_must_be_one_number() -> None:
    outputs, targets = classes(3)
    own = Measure(name="own", maximize=True, function=lambda outputs, targets: outputs.mean(dim=0))
    with pytest.raises(UsageError, match="one number, got 3 of them"):
        value(own, outputs, targets)


def test_class_numbers_of_more_outputs_than_targets_are_refused() -> None:
    with pytest.raises(UsageError, match="do not fit targets"):
        class_numbers(torch.zeros(4, 2), torch.zeros(4, 3, dtype=torch.int64))


def test_a_measure_without_a_function_cannot_be_computed() -> None:
    with pytest.raises(UsageError, match="Measure own: give a function of outputs and targets, or a metric"):
        make_meter(Measure(name="own", maximize=True), CPU)


def test_bounds_are_not_those_of_torchmetrics_plots(torchmetrics: Any) -> None:
    """A diverged trial has the worst value: 0 would be better than a correlation of -0.5."""
    for kind, worst in (("BinaryMatthewsCorrCoef", -1.0), ("BinaryCohenKappa", -1.0), ("BinaryHingeLoss", math.inf)):
        assert measure_of(getattr(torchmetrics.classification, kind)()).worst == worst
    assert measure_of(torchmetrics.regression.ExplainedVariance()).worst == -math.inf


def test_whole_examples_are_compared_by_exact_match(torchmetrics: Any) -> None:
    outputs = torch.nn.functional.one_hot(torch.tensor([[0, 1], [1, 1]]), 3).movedim(-1, 1).float()
    metric = torchmetrics.classification.MulticlassExactMatch(num_classes=3)
    assert value(metric, outputs, torch.tensor([[0, 1], [1, 2]])) == 0.5


def test_a_squeezed_batch_of_one_is_an_example() -> None:
    meter = make_meter(measure_of("MSE"), CPU)
    meter.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]))
    meter.update(torch.tensor(3.0), torch.tensor([6.0]))
    assert meter.compute() == 3.0

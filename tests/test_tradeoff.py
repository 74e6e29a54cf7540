"""Quality against size: the Pareto front against its definition, and what report and export make of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hpsearch import UsageError
from hpsearch.measure import ACCURACY, LOSS
from hpsearch.results import open_results
from hpsearch.results.tradeoff import differ_in_size, front_table, pareto_front, plot_tradeoff
from hpsearch.search import Search, run
from support import STUDIES
from support.in_process import hpsearch_here

SIZES = '''
"""A small MLP on digits in two sizes."""

from functools import partial

from hpsearch import MLP, SGD, Recipe, Space, Study, digits


def recipe(space: Space) -> Recipe:
    hidden = space.int("hidden", 4, 64, grid=[4, 64])
    clip = space.choice("clip_norm", [None, 1.0]) if hidden == 64 else None
    return Recipe(model=MLP(inputs=64, hidden=(hidden,)), optimizer=SGD(lr=0.05), batch_size=64, clip_norm=clip)


study = Study(recipe=recipe, dataset=partial(digits, size=8), epochs=2, pruner="none", sampler="grid")
'''


def frame(costs: list[float | None], values: list[float]) -> pd.DataFrame:
    costs_ms = [None if cost is None else cost / 10 for cost in costs]
    columns = {"parameters": costs, "multiply_adds": costs, "latency_ms": costs_ms, "batch_latency_ms": costs_ms}
    return pd.DataFrame({"state": "complete", "value": values, **columns})


@pytest.mark.parametrize("maximize", [True, False])
def test_the_front_is_what_no_other_dominates(maximize: bool) -> None:
    generator = np.random.default_rng(0)
    costs, values = generator.integers(1, 30, 200), generator.normal(size=200).round(1)
    sign = 1 if maximize else -1
    front = pareto_front(pd.Series(costs), pd.Series(values), maximize=maximize)
    expected = [
        i
        for i in range(200)
        if not any(
            (costs[j] <= costs[i] and sign * values[j] >= sign * values[i])
            and (costs[j] < costs[i] or sign * values[j] > sign * values[i] or j < i)
            for j in range(200)
        )
    ]
    assert sorted(front) == expected
    assert list(costs[front]) == sorted(costs[front])


def test_missing_and_infinite_entries_are_in_no_front() -> None:
    trials = frame([None, 10, 20, 5], [0.99, 0.8, 0.9, -np.inf])
    assert list(pareto_front(trials["parameters"], trials["value"], maximize=True)) == [1, 2]
    assert differ_in_size(trials)
    assert not differ_in_size(frame([None, None], [0.5, 0.6]))
    assert not differ_in_size(frame([10, 10], [0.5, 0.6]))


def test_the_table_has_both_fronts_and_says_which() -> None:
    trials = frame([10, 20, 30], [0.8, 0.9, 0.7])
    trials.loc[2, "latency_ms"] = 0.5
    table = front_table(trials, ACCURACY)
    assert list(table["trial"]) == [0, 1, 2]
    assert list(table["front"]) == ["size and speed", "size and speed", "speed"]
    assert list(table["parameters"]) == ["10", "20", "30"]


def test_the_figure_marks_the_front_of_either_direction() -> None:
    trials = frame([10, 20, 30], [0.8, 0.9, 0.7])
    for measure, expected in ((ACCURACY, [10, 20]), (LOSS, [10, 30])):
        figure = plot_tradeoff(trials, measure)
        size = figure.axes[0]
        assert size.get_ylabel() == f"Validation {measure.name}"
        marked = size.collections[1].get_offsets()
        assert [x for x, _ in np.asarray(marked)] == expected
        assert figure.axes[1].get_xlabel() == "Milliseconds for one example"
    trials["latency_ms"] = None
    assert len(plot_tradeoff(trials, ACCURACY).axes) == 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    (folder / "sizes.py").write_text(SIZES)
    run(Search.of(str(folder / "sizes.py"), storage=f"sqlite:///{folder}/hpsearch.db", runs=folder / "runs"))
    return folder


def test_costs_are_kept_with_each_trial(folder: Path) -> None:
    results = open_results(str(folder / "sizes.py"), storage=f"sqlite:///{folder}/hpsearch.db", runs=folder / "runs")
    trials = results.trials
    hidden = trials["params.hidden"].to_numpy()
    assert list(trials["parameters"]) == list(75 * hidden + 10)
    assert list(trials["multiply_adds"]) == list(74 * hidden)
    assert (trials["latency_ms"] > 0).all()
    assert (trials["batch_latency_ms"] > 0).all()


def test_the_report_shows_quality_against_size(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    assert hpsearch_here(tmp_path, "report", "--study", "sizes.py") == 0
    page = (tmp_path / "reports" / "sizes" / "summary.md").read_text()
    table = page.partition("## Quality against size")[2].partition("\n## ")[0]
    assert "| 310 | 296 |" in table
    assert "![tradeoff](plots/tradeoff.png)" in page
    assert (tmp_path / "reports" / "sizes" / "plots" / "tradeoff.png").stat().st_size > 10_000
    header = (tmp_path / "reports" / "sizes" / "trials.csv").read_text().splitlines()[0]
    assert "parameters,multiply_adds,latency_ms,batch_latency_ms" in header


def test_export_takes_the_best_of_those_that_satisfy_a_condition(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)

    def exported(*where: str) -> dict[str, object]:
        hpsearch_here(tmp_path, "export", "--study", "sizes.py", *where)
        params: dict[str, object] = json.loads((tmp_path / "best" / "sizes-1.json").read_text())["params"]
        return params

    assert exported()["hidden"] == 64
    assert exported("--where", "parameters < 1000") == {"hidden": 4}
    assert exported("--where", "clip_norm == None and hidden > 10") == {"hidden": 64, "clip_norm": None}
    exported("--top", "2", "--where", "parameters < 1000")
    assert "the study has only 1 different complete configuration with parameters < 1000" in capsys.readouterr().err
    with pytest.raises(UsageError, match="no complete trial has parameters < 100: the lowest is 310"):
        exported("--where", "parameters < 100")


def test_trials_of_earlier_versions_have_no_costs(tmp_path: Path) -> None:
    from support.finished_study import make_study

    make_study(tmp_path, ["budget", "pruned", "budget"])
    trials = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db").trials
    assert trials["latency_ms"].isna().all()
    hpsearch_here(tmp_path, "report", "--study", "tiny")
    assert "Quality against size" not in (tmp_path / "reports" / "tiny" / "summary.md").read_text()

"""`hpsearch compare`: equal epochs for all, resumable, and a table whose numbers follow from the database."""

import dataclasses
import json
import math
import re
import shutil
import signal
import sqlite3
import statistics
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest

from hpsearch import Dataset, Recipe, Space, Steps, UsageError
from hpsearch.errors import HpsearchError
from hpsearch.results import comparison as compare
from hpsearch.search.comparison import Comparison, Pair, budget_of, make_pairs, train_pair, trained, trained_already
from hpsearch.search.pair_processes import Watcher, make_job, train_pairs
from hpsearch.search.stored_study import StoredStudy, open_for_run
from hpsearch.search.study_attrs import BASELINE
from hpsearch.search.supervisor import End
from hpsearch.study import StudyFile, load_study
from support import STUDIES
from support.in_process import hpsearch_here

STRATEGIES = "random,grid,tpe:n_startup_trials=2,group=false+asha"
BUDGET = 20


@pytest.fixture(scope="module")
def tiny() -> StudyFile:
    return load_study(str(STUDIES / "tiny.py"))


@pytest.fixture(scope="module")
def data(tiny: StudyFile) -> Dataset:
    return tiny.study.load_data()


def train(folder: Path, tiny: StudyFile, data: Dataset, pair: Pair, budget: int) -> StoredStudy:
    return train_pair(pair, comparison_of(folder, tiny, budget), data).stored


def comparison_of(folder: Path, study_file: StudyFile, budget: int) -> Comparison:
    return Comparison(
        study_file=study_file, storage=f"sqlite:///{folder}/hpsearch.db", runs=folder / "runs", budget=budget
    )


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory, tiny: StudyFile, data: Dataset) -> Path:
    """A folder in which two seeds of each strategy have been compared."""
    folder = tmp_path_factory.mktemp("compared")
    for pair in make_pairs(STRATEGIES, tiny.study, name="tiny", repeats=2, seed=0):
        train(folder, tiny, data, pair, BUDGET)
    arguments = ["--study", "tiny", "--strategies", STRATEGIES, "--repeats", "2", "--epoch-budget", str(BUDGET)]
    assert hpsearch_here(folder, "compare", *arguments) == 0
    return folder


def rows(folder: Path, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "hpsearch.db")) as connection:
        return list(connection.execute(query))


def curves(folder: Path) -> dict[str, list[float]]:
    """Return by study the accuracies in the order of training, by plain SQL."""
    found: dict[str, list[float]] = {}
    for name, accuracy in rows(
        folder,
        "SELECT study_name, intermediate_value FROM trial_intermediate_values NATURAL JOIN trials NATURAL JOIN studies "
        "ORDER BY study_name, number, step",
    ):
        assert isinstance(accuracy, float)
        found.setdefault(str(name), []).append(accuracy)
    return found


def test_every_strategy_trains_exactly_the_budget(compared: Path) -> None:
    found = curves(compared)
    assert len(found) == 6
    assert {len(accuracies) for accuracies in found.values()} == {BUDGET}
    states = dict(rows(compared, "SELECT state, COUNT(*) FROM trials GROUP BY state"))
    assert set(states) <= {"COMPLETE", "PRUNED", "WAITING"}


def test_the_table_of_repeats_follows_from_the_database(compared: Path) -> None:
    table = pd.read_csv(compared / "reports/tiny/compare_repeats.csv").set_index("study")
    found = curves(compared)
    near = 0.995 * max(map(max, found.values()))
    for name, accuracies in found.items():
        row = table.loc[name]
        best = [max(accuracies[: end + 1]) for end in range(len(accuracies))]
        assert row["best"] == max(accuracies)
        assert row["area"] == pytest.approx(sum(best) / BUDGET)
        assert row["epochs"] == BUDGET
        reached = [epoch for epoch, value in enumerate(best, start=1) if value >= near]
        assert row["epochs_to_near"] == reached[0] if reached else math.isnan(row["epochs_to_near"])
        for column, state in (("complete", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL")):
            query = "SELECT COUNT(*) FROM trials NATURAL JOIN studies WHERE study_name = '{}' AND state = '{}'"
            assert rows(compared, query.format(name, state)) == [(row[column],)]
        query = (
            "SELECT value_json FROM study_user_attributes NATURAL JOIN studies WHERE study_name = '{}' AND key = '{}'"
        )
        assert rows(compared, query.format(name, "hpsearch:wall_seconds")) == [(json.dumps(row["wall_seconds"]),)]
        rivals = [max(other) for rival, other in found.items() if rival[-1] == name[-1]]
        better = sum(value > max(accuracies) for value in rivals)
        equal = sum(value == max(accuracies) for value in rivals)
        assert row["rank"] == better + (equal + 1) / 2


def test_the_table_of_strategies_follows_from_the_repeats(compared: Path) -> None:
    table = pd.read_csv(compared / "reports/tiny/compare.csv").set_index("strategy")
    repeats = pd.read_csv(compared / "reports/tiny/compare_repeats.csv")
    assert list(table["best_mean"]) == sorted(table["best_mean"], reverse=True)
    for strategy, group in repeats.groupby("strategy"):
        row = table.loc[strategy]
        values = list(group["best"])
        assert row["repeats"] == len(values) == 2
        assert row["best_mean"] == pytest.approx(statistics.mean(values))
        assert row["best_sd"] == pytest.approx(statistics.stdev(values))
        assert row["best_se"] == pytest.approx(statistics.stdev(values) / math.sqrt(2))
        assert row["area_mean"] == pytest.approx(statistics.mean(group["area"]))
        assert row["rank_mean"] == pytest.approx(statistics.mean(group["rank"]))
        assert row["rank_se"] == pytest.approx(statistics.stdev(group["rank"]) / math.sqrt(2))
        assert row["near_reached"] == group["epochs_to_near"].notna().sum()


def test_the_page_names_command_machine_and_versions_and_shows_the_plot(compared: Path) -> None:
    page = (compared / "reports/tiny/compare.md").read_text()
    assert f"hpsearch compare --study tiny --strategies {STRATEGIES} --repeats 2 --epoch-budget {BUDGET}" in page
    assert "optuna 5" in page
    assert "core" in page
    assert (compared / "reports/tiny/compare.png").read_bytes().startswith(b"\x89PNG")
    assert "compare.png" in page


def test_the_page_names_the_baseline_and_says_if_nothing_is_better(
    compared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (compared / "reports/tiny/compare.md").read_text()
    baseline = re.search(r"\| baseline \| (always answering '\d', which is right for 0\.\d+ of .*) \|", page)
    assert baseline is not None
    assert "Caution" not in page
    shutil.copytree(compared, tmp_path, dirs_exist_ok=True)
    with closing(sqlite3.connect(tmp_path / "hpsearch.db")) as connection, connection:
        better = "UPDATE study_user_attributes SET value_json = json_set(value_json, '$.value', 0.99) WHERE key = ?"
        connection.execute(better, [BASELINE])
    arguments = ["--study", "tiny", "--strategies", STRATEGIES, "--repeats", "2", "--epoch-budget", str(BUDGET)]
    assert hpsearch_here(tmp_path, "compare", *arguments) == 0
    caution = "**Caution**: the best of all is no better than always answering"
    assert caution in (tmp_path / "reports/tiny/compare.md").read_text()
    assert caution in capsys.readouterr().out


def test_the_grid_is_compared_in_another_order_under_each_seed(compared: Path) -> None:
    query = (
        "SELECT study_name, number, param_name, param_value FROM trial_params NATURAL JOIN trials NATURAL JOIN studies "
        "WHERE study_name LIKE 'tiny@grid#%' ORDER BY study_name, number, param_name"
    )
    first, second = ([row[1:] for row in rows(compared, query) if str(row[0])[-1] == repeat] for repeat in "12")
    assert first != second


def test_a_comparison_done_says_that_nothing_is_left(compared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--study", "tiny", "--strategies", STRATEGIES, "--repeats", "2", "--epoch-budget", str(BUDGET)]
    before = (compared / "reports/tiny/compare_repeats.csv").read_text()
    assert hpsearch_here(compared, "compare", *arguments) == 0
    assert "nothing was left to train" in capsys.readouterr().err
    assert (compared / "reports/tiny/compare_repeats.csv").read_text() == before


def contents(stored: StoredStudy) -> list[object]:
    trials = stored.optuna_study().trials
    return [(trial.params, trial.intermediate_values, trial.state, trial.value) for trial in trials]


@pytest.mark.parametrize("strategy", ["random+hyperband", "nsga2:population_size=2+median:n_startup_trials=1"])
def test_a_budget_in_two_parts_is_the_budget_in_one(
    tmp_path: Path, tiny: StudyFile, data: Dataset, strategy: str
) -> None:
    pair = Pair(name="pair", strategy=strategy, repeat=1, seed=3)
    whole = train(tmp_path, tiny, data, pair, 22)
    (tmp_path / "parts").mkdir()
    first = train(tmp_path / "parts", tiny, data, pair, 10)
    assert trained(first)[0] == 10
    parts = train(tmp_path / "parts", tiny, data, pair, 22)
    assert trained(parts)[0] == 22
    assert contents(parts) == contents(whole)


class Interrupting(Watcher):
    """Interrupts a comparison, as Ctrl-C does, at its `at`-th interval."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.reports = 0
        self.ends: dict[str, tuple[End, int]] = {}
        self.bests: dict[str, float] = {}
        self.errors: list[str] = []

    def pair_started(self, pair: Pair) -> None:
        pass

    def pair_reported(self, pair: Pair, accuracy: float) -> None:
        self.reports += 1
        if self.reports == self.at:
            signal.raise_signal(signal.SIGINT)

    def pair_ended(self, pair: Pair, end: End, intervals: int, best: float) -> None:
        self.ends[pair.name] = (end, intervals)
        self.bests[pair.name] = best

    def pair_failed(self, pair: Pair, error: str) -> None:
        self.errors.append(error)

    def message(self, text: str) -> None:
        pass

    def tick(self) -> None:
        pass


def test_an_interrupted_comparison_goes_on_to_the_exact_budget(tmp_path: Path, tiny: StudyFile, data: Dataset) -> None:
    url = f"sqlite:///{tmp_path}/hpsearch.db"
    pairs = make_pairs("random,sobol", tiny.study, name="tiny", repeats=1, seed=0)
    comparison = comparison_of(tmp_path, tiny, 16)
    trained_already(pairs, comparison, data)
    job = make_job(comparison, data)
    interrupting = Interrupting(at=5)
    assert not train_pairs(pairs, job, interrupting)
    assert set(dict(rows(tmp_path, "SELECT state, COUNT(*) FROM trials GROUP BY state"))) <= {"COMPLETE", "WAITING"}
    before = trained_already(pairs, comparison, data)
    assert 5 <= before[pairs[0]] < 16
    assert before[pairs[1]] == 0
    watcher = Interrupting()
    assert train_pairs(pairs, dataclasses.replace(job, workers=2), watcher)
    assert not watcher.errors
    assert watcher.ends == {"tiny@random#1": ("done", 16), "tiny@sobol#1": ("done", 16)}
    assert watcher.reports == 32 - before[pairs[0]]
    straight = train(tmp_path, tiny, data, Pair(name="straight", strategy="random", repeat=1, seed=0), 16)
    again = open_for_run(url, tiny, data, name="tiny@random#1", seed=0, runs=tmp_path / "runs")
    assert contents(again) == contents(straight)
    # The best of both runs, not only of the second.
    assert watcher.bests["tiny@random#1"] == max(curves(tmp_path)["tiny@random#1"])


def test_a_pair_whose_process_never_ends_loading_fails_and_the_next_is_trained(tmp_path: Path) -> None:
    path, first = tmp_path / "slow.py", tmp_path / "first"
    path.write_text(
        f"import multiprocessing, pathlib, time\n"
        f"if multiprocessing.parent_process() and not pathlib.Path({str(first)!r}).exists():\n"
        f"    pathlib.Path({str(first)!r}).touch()\n"
        f"    time.sleep(600)\n" + (STUDIES / "tiny.py").read_text()
    )
    slow = load_study(str(path))
    data = slow.study.load_data()
    pairs = make_pairs("random,sobol", slow.study, name="slow", repeats=1, seed=0)
    job = make_job(comparison_of(tmp_path, slow, 8), data)
    watcher = Interrupting()
    assert train_pairs(pairs, dataclasses.replace(job, load_timeout=10.0), watcher)
    assert len(watcher.errors) == 1
    assert "has not loaded the study within 10 s" in watcher.errors[0]
    assert watcher.ends == {"slow@sobol#1": ("done", 8)}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--strategies", "random,gpp"], ["unknown sampler 'gpp'", "did you mean gp"]),
        (["--strategies", "random+axe"], ["unknown pruner 'axe'", "median"]),
        (["--strategies", "tpe:startup=3"], ["startup=3", "n_startup_trials"]),
        (["--strategies", "manual"], ["manual", "leave it out"]),
        (["--strategies", "tpe,tpe"], ["tpe is named twice"]),
        (["--strategies", ","], ["--strategies is empty"]),
        (["--strategies", "random+hyperband:min_resource=30"], ["min_resource", "got 30"]),
        (["--strategies", "random", "--out", "hpsearch.db/x"], ["cannot write to the folder hpsearch.db/x"]),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(tmp_path: Path, options: list[str], expected: list[str]) -> None:
    (tmp_path / "hpsearch.db").touch()
    with pytest.raises(UsageError) as error:
        hpsearch_here(tmp_path, "compare", "--study", "tiny", "--epoch-budget", "10", *options)
    assert "\n" not in str(error.value)
    assert all(part in str(error.value) for part in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["hpsearch.db"]
    assert (tmp_path / "hpsearch.db").stat().st_size == 0


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--epoch-budget", "10"], ["tiny@random#1", f"{BUDGET} epochs already", "budget of 10"]),
        (["--epoch-budget", str(BUDGET), "--seed", "4"], ["tiny@random#1", "seed was 0, is now 4"]),
    ],
)
def test_another_budget_or_seed_than_before_is_refused(compared: Path, options: list[str], expected: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        hpsearch_here(compared, "compare", "--study", "tiny", "--strategies", "random", "--repeats", "1", *options)
    assert all(part in str(error.value) for part in expected)


def test_a_budget_is_whole_intervals(tiny: StudyFile) -> None:
    assert budget_of(dataclasses.replace(tiny.study, interval=2), 30) == 15
    with pytest.raises(UsageError, match="multiple of the study's interval, 4; got 30"):
        budget_of(dataclasses.replace(tiny.study, interval=4), 30)
    with pytest.raises(UsageError, match="interval is 5 steps"):
        budget_of(dataclasses.replace(tiny.study, interval=Steps(5)), 30)
    # A trial of 7 epochs has an interval of one, which would count as two.
    with pytest.raises(UsageError, match="trials of 7 epochs are not a multiple of the study's interval, 2"):
        budget_of(dataclasses.replace(tiny.study, epochs=7, interval=2), 30)

    def recipe(space: Space) -> Recipe:
        return dataclasses.replace(tiny.study.recipe(space), epochs=space.choice("epochs", [4, 3]))

    with pytest.raises(UsageError, match="trials of 3 epochs are not a multiple of the study's interval, 2"):
        budget_of(dataclasses.replace(tiny.study, recipe=recipe, interval=2), 30)


@pytest.fixture
def repeats() -> pd.DataFrame:
    best = {"a": [0.90, 0.92, 0.94], "b": [0.91, 0.91, 0.91], "random": [0.80, 0.81, 0.85]}
    return pd.DataFrame(
        [
            {
                "strategy": name,
                "repeat": repeat,
                "best": value,
                "area": value - 0.1,
                "best_complete": value - 0.01 * (name == "b"),
                "epochs_to_near": 40.0 if value > 0.91 else float("nan"),
                "rank": 1.0,
                "epochs": 250 if name == "b" else 300,
            }
            | dict.fromkeys(("complete", "pruned", "failed", "wall_seconds"), 1)
            for name, values in best.items()
            for repeat, value in enumerate(values, start=1)
        ]
    )


def test_the_paragraph_says_what_the_numbers_do(repeats: pd.DataFrame) -> None:
    table = compare.strategies_frame(repeats)
    # a - b is -0.01, 0.01, 0.03: mean 0.01, standard error 0.02 / sqrt(3) = 0.0115. a - random is 0.1 +- 0.0058.
    assert compare.within_one_se(repeats, table) == ["a", "b"]
    text = compare.conclusion(repeats, table, budget=300, default="b", examples=1000)
    assert "The highest mean best validation accuracy is a's, 0.9200 ± 0.0200" in text
    assert (
        "b is within one standard error of it (of the difference, paired by seed); "
        "further below: random (-0.1000 ± 0.0058)." in text
    )
    assert "The study's default, b, is within one standard error." in text
    assert "a +0.1000 ± 0.0058" in text
    # t is 17.3 and 5.9 with two degrees of freedom: p is 0.0017 and 0.014, both below 0.05 / 2.
    assert list(compare.against(repeats, "random")["p"].round(4)) == [0.0017, 0.0138]
    assert "better than random search are a, b (one-sided paired t-test at 5%, Bonferroni-corrected for 2)." in text
    assert "or fewer where the grid had no more points (b after 250)" in text
    assert compare.of_complete(table) == "over complete trials only, the mean is lower by at most 0.0100 (b)."
    assert "One of the 1,000 validation examples is 0.0010." in text
    assert "default, c, was not compared" in compare.conclusion(repeats, table, budget=1, default="c", examples=9)


def test_what_cannot_be_told_from_random_search_is_not_called_equal(repeats: pd.DataFrame) -> None:
    repeats.loc[repeats["strategy"] == "random", "best"] = [0.89, 0.93, 0.91]
    text = compare.conclusion(repeats, compare.strategies_frame(repeats), budget=300, default="b", examples=1000)
    assert "none differs significantly from random search" in text
    assert "which does not show that they are equal" in text
    assert "-0.0000" not in text


def test_the_median_of_the_epochs_counts_the_seeds_that_never_got_there(repeats: pd.DataFrame) -> None:
    table = compare.page_table(compare.strategies_frame(repeats)).set_index("strategy")
    assert dict(table["epochs to 0.5 %"]) == {"a": "40 (2/3)", "b": "- (0/3)", "random": "- (0/3)"}
    repeats.loc[1, "epochs_to_near"] = float("nan")
    table = compare.page_table(compare.strategies_frame(repeats)).set_index("strategy")
    assert table.loc["a", "epochs to 0.5 %"] == "- (1/3)"


def test_what_is_done_is_compared_when_a_pair_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--study", "tiny", "--strategies", "random,sobol", "--repeats", "2", "--epoch-budget", "8"]

    def failing(pairs: list[Pair], job: object, watcher: Watcher) -> bool:
        train_pairs(pairs[:3], job, watcher)  # type: ignore[arg-type]
        watcher.pair_failed(pairs[3], "it failed")
        return True

    monkeypatch.setattr("hpsearch.cli.compare.train_pairs", failing)
    with pytest.raises(HpsearchError, match="1 of 4 pairs failed"):
        hpsearch_here(tmp_path, "compare", *arguments)
    page = (tmp_path / "reports/tiny/compare.md").read_text()
    assert "**Not finished**: 1 of 2 seeds are compared here." in page
    assert set(pd.read_csv(tmp_path / "reports/tiny/compare_repeats.csv")["repeat"]) == {1}
    monkeypatch.undo()
    assert hpsearch_here(tmp_path, "compare", *arguments) == 0
    assert "Not finished" not in (tmp_path / "reports/tiny/compare.md").read_text()


def test_the_curves_can_be_drawn_from_their_file(compared: Path) -> None:
    written = pd.read_csv(compared / "reports/tiny/compare_curves.csv")
    for name, accuracies in curves(compared).items():
        strategy, _, repeat = name.removeprefix("tiny@").rpartition("#")
        mine = written[(written["strategy"] == strategy) & (written["repeat"] == int(repeat))]
        rises = [end for end in range(BUDGET) if accuracies[end] > max(accuracies[:end], default=-1)]
        assert list(mine["epochs"]) == [end + 1 for end in rises]
        assert list(mine["best"]) == [accuracies[end] for end in rises]


def test_a_changed_study_file_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "tiny.py"
    copy.write_text((STUDIES / "tiny.py").read_text())
    arguments = ["--study", str(copy), "--strategies", "random", "--repeats", "1", "--epoch-budget"]
    assert hpsearch_here(tmp_path, "compare", *arguments, "4") == 0
    assert "Caution" not in capsys.readouterr().out
    copy.write_text(copy.read_text() + "\n# Another text.\n")
    assert hpsearch_here(tmp_path, "compare", *arguments, "8") == 0
    assert "**Caution**: tiny.py was changed since some of this was trained (tiny@random#1)" in capsys.readouterr().out


def test_a_curve_that_ends_early_keeps_its_best() -> None:
    epochs = pd.DataFrame(
        {"strategy": ["a"] * 2, "repeat": [1, 1], "epochs": [1, 2], "value": [0.5, 0.75], "best": [0.5, 0.75]}
    )
    assert list(compare.best_so_far(epochs, 4)[("a", 1)]) == [0.5, 0.75, 0.75, 0.75]

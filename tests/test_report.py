"""`hpsearch report`: its tables against the database, its pages and plots for studies of every kind and size."""

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from hpsearch import UsageError
from hpsearch.results import Results, open_results, report_plots
from hpsearch.results.figures import by_parameter, write_figure
from hpsearch.results.report import _plots, best_frame, endings_frame, write_report
from hpsearch.results.tables import distributions, trials_frame
from support import STUDIES
from support.finished_study import SPACE, make_study
from support.in_process import hpsearch_here

REASONS: list[str | None] = [*["budget", "patience", "pruned", "diverged", "target", "failed"] * 6, None]
PLOTS = {"optimisation", "learning_curves", "importances", "parallel", "slices", "timeline"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study of 37 trials with its report."""
    folder = tmp_path_factory.mktemp("reported")
    make_study(folder, REASONS)
    assert hpsearch_here(folder, "report", "--study", "tiny") == 0
    return folder


def test_a_figure_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    write_figure(Figure(figsize=(2, 2)), path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_figure(Figure(figsize=(3, 3)), path)
        assert reader.read() == before
    assert matplotlib.image.imread(path).shape[:2] == (300, 300)
    assert list(tmp_path.iterdir()) == [path]


def rows(folder: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(folder / "hpsearch.db")) as connection:
        return list(connection.execute(query))


def test_there_is_one_row_a_trial_as_in_the_database(reported: Path) -> None:
    table = pd.read_csv(reported / "reports/tiny/trials.csv").set_index("number")
    names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "WAITING": "waiting"}
    states = dict(rows(reported, "SELECT number, state FROM trials"))
    stored = "SELECT number, value_json FROM trial_user_attributes NATURAL JOIN trials WHERE key = '{}'"
    reasons = {number: text.strip('"') for number, text in rows(reported, stored.format("reason"))}
    expected = {number: names[state] for number, state in states.items()}
    expected |= {number: "diverged" for number, reason in reasons.items() if reason == "diverged"}
    assert dict(table["state"]) == expected
    values = dict(rows(reported, "SELECT number, value FROM trial_values NATURAL JOIN trials"))
    assert dict(table["value"].dropna()) == values
    assert dict(table["reason"].dropna()) == reasons
    rates = dict(
        rows(reported, "SELECT number, param_value FROM trial_params NATURAL JOIN trials WHERE param_name='lr'")
    )
    assert dict(table["params.lr"]) == pytest.approx(rates)
    momenta = rows(reported, "SELECT number FROM trial_params NATURAL JOIN trials WHERE param_name='momentum'")
    assert set(table["params.momentum"].dropna().index) == {number for (number,) in momenta}
    assert set(table["error"].dropna()) == {"ValueError: the user's model is broken"}


def test_there_is_one_row_an_interval_as_in_the_database(reported: Path) -> None:
    table = pd.read_csv(reported / "reports/tiny/history.csv")
    found = list(table[["number", "interval", "validation_accuracy"]].itertuples(index=False, name=None))
    stored = "SELECT number, step, intermediate_value FROM trial_intermediate_values NATURAL JOIN trials ORDER BY 1, 2"
    assert found == rows(reported, stored)


def test_how_the_training_was_spent_follows_from_the_database(reported: Path) -> None:
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{reported}/hpsearch.db")
    frame = endings_frame(results.trials, results.history)
    query = """
        SELECT COALESCE(json_extract(value_json, '$'), 'unfinished'), COUNT(DISTINCT trials.trial_id), COUNT(step)
        FROM trials
        LEFT JOIN trial_user_attributes a ON a.trial_id = trials.trial_id AND key = 'reason'
        LEFT JOIN trial_intermediate_values i ON i.trial_id = trials.trial_id
        GROUP BY 1
    """
    expected = {reason: (trials, intervals) for reason, trials, intervals in rows(reported, query)}
    assert {str(r): (row["trials"], row["intervals"]) for r, row in frame.iterrows()} == expected
    assert frame["share"].sum() == pytest.approx(1)
    total = sum(intervals for _, intervals in expected.values())
    page = (reported / "reports/tiny/summary.md").read_text()
    assert f"{total} epochs" in page
    assert f"| stopped: no further improvement | 6 | {expected['patience'][1]} |" in page


def test_the_best_trials_are_those_of_the_database(reported: Path) -> None:
    query = (
        "SELECT number, value FROM trial_values NATURAL JOIN trials WHERE state = 'COMPLETE' "
        "ORDER BY value DESC, number LIMIT 10"
    )
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{reported}/hpsearch.db")
    assert list(best_frame(results.trials, results.measure)["value"].items()) == rows(reported, query)
    page = (reported / "reports/tiny/summary.md").read_text()
    for number, value in rows(reported, query):
        assert f"| {number} | {value:.4f} |" in page


def test_all_plots_are_there_legible_and_on_the_page(reported: Path) -> None:
    page = (reported / "reports/tiny/summary.md").read_text()
    assert {path.stem for path in (reported / "reports/tiny/plots").iterdir()} == PLOTS
    assert set(re.findall(r"\(plots/(\w+)\.png\)", page)) == PLOTS
    for path in (reported / "reports/tiny/plots").iterdir():
        height, width, _ = matplotlib.image.imread(path).shape
        assert width == 900
        assert 150 < height < 1000
    assert "**Caution:** 18 complete trials are few" in page
    assert "`hpsearch report --study tiny`" in page


@pytest.mark.parametrize(
    "reasons",
    [
        ["failed"],
        [None],
        ["pruned"],
        ["budget"],
        ["budget", "patience"] * 4,
        ["diverged", "failed", None],
        ["budget"] * 50,
    ],
    ids=["failed", "waiting", "pruned", "one", "few", "none complete", "many"],
)
def test_a_study_of_any_kind_has_a_report(tmp_path: Path, reasons: list[str | None]) -> None:
    make_study(tmp_path, reasons)
    assert hpsearch_here(tmp_path, "report", "--study", "tiny") == 0
    page = (tmp_path / "reports/tiny/summary.md").read_text()
    assert ("Caution" in page) == (2 <= reasons.count("budget") < 50)
    assert ("cannot be computed" in page) == (reasons.count("budget") < 2)
    assert ("No trial is complete yet." in page) == ("budget" not in reasons)
    assert len(pd.read_csv(tmp_path / "reports/tiny/trials.csv")) == len(reasons)


def test_crowded_plots_show_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_plots, "MOST_CURVES", 20)
    stored = make_study(tmp_path, ["budget", "pruned"] * 30)
    sample = report_plots._sample(trials_frame(stored), stored.measure)
    assert len(sample) <= 20
    assert open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db").best in sample
    assert hpsearch_here(tmp_path, "report", "--study", "tiny") == 0
    assert len(pd.read_csv(tmp_path / "reports/tiny/trials.csv")) == 60
    assert {path.stem for path in (tmp_path / "reports/tiny/plots").iterdir()} == PLOTS


def own_figures(results: Results, folder: Path, figures: Mapping[str, Any]) -> list[str]:
    folder.mkdir(exist_ok=True)
    object.__setattr__(results.study, "figures", figures)
    return write_report(results, folder, "hpsearch report --study tiny")


def test_the_studys_own_figures_come_first_with_their_docstrings(tmp_path: Path) -> None:
    make_study(tmp_path, ["budget"] * 3)
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db")

    def widths(given: Results) -> Figure:
        """How wide the best ones are."""
        figure = Figure()
        figure.subplots().plot(given.trials["params.hidden"], given.trials["value"])
        return figure

    def broken(given: Results) -> Figure:
        raise KeyError("params.width")

    def nothing(given: Results) -> None:
        pass

    folder = tmp_path / "report"
    failures = own_figures(results, folder, {"widths": widths, "broken": broken, "nothing": nothing, "../up": widths})
    page = (folder / "summary.md").read_text()
    assert re.findall(r"\(plots/(\w+)\.png\)", page)[0] == "widths"
    assert "How wide the best ones are." in page
    assert (folder / "plots/widths.png").exists()
    assert [failure.partition(":")[0] for failure in failures] == ["figure broken", "figure nothing", "figure ../up"]
    assert "params.width" in failures[0]
    assert "must return a matplotlib Figure, got NoneType" in failures[1]
    assert own_figures(results, folder, {}) == []
    assert not (folder / "plots/widths.png").exists()


def test_histories_on_disk_are_joined_to_the_reports(tmp_path: Path) -> None:
    stored = make_study(tmp_path, ["budget", "pruned", "failed"])
    for number in (0, 1):
        path = stored.folder / str(number)
        path.mkdir()
        # Trial 1's file misses its last interval, as after a crash of the machine.
        lines = [f"{interval},{interval / 2},0.{interval}" for interval in range(1, 9 if number == 0 else 2)]
        (path / "history.csv").write_text("\n".join(["interval,epoch,train_loss", *lines, ""]))
    results = open_results(
        str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db", runs=tmp_path / "runs"
    )
    history = results.history
    assert list(history[history["number"] == 0]["train_loss"]) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    second = history[history["number"] == 1]
    assert second["epoch"].iloc[0] == 0.5
    assert second["epoch"].iloc[1:].isna().all()
    assert len(history) == len(rows(tmp_path, "SELECT * FROM trial_intermediate_values"))


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    make_study(tmp_path, [])
    with pytest.raises(UsageError, match="study tiny has no trials yet: hpsearch run"):
        hpsearch_here(tmp_path, "report", "--study", "tiny")
    with pytest.raises(UsageError, match=r"no study 'other' in sqlite:///hpsearch\.db: it has tiny"):
        hpsearch_here(tmp_path, "report", "--study", "tiny", "--name", "other")
    with pytest.raises(UsageError, match=r"cannot write to the folder hpsearch\.db/x"):
        hpsearch_here(tmp_path, "report", "--study", "tiny", "--out", "hpsearch.db/x")


def test_the_page_says_how_and_where_the_study_was_run(tmp_path: Path) -> None:
    run = ["run", "--study", "tiny", "--workers", "0", "--n-trials"]
    assert hpsearch_here(tmp_path, *run, "1", "--sampler", "random", "--pruner", "none") == 0
    assert hpsearch_here(tmp_path, *run, "2", "--sampler", "random", "--pruner", "none") == 0
    assert hpsearch_here(tmp_path, *run, "3", "--sampler", "gp", "--pruner", "none") == 0
    assert hpsearch_here(tmp_path, "report", "--study", "tiny") == 0
    page = (tmp_path / "reports/tiny/summary.md").read_text()
    assert "| sampler | random; then gp |" in page
    assert "| pruner | none |" in page
    assert "| epochs | 8 per trial (unless its recipe sets them), evaluated every epoch |" in page
    assert re.search(r"\| machine \| .* core.*; 0 workers, on cpu \|", page)
    assert "optuna 5" in page
    # Seconds are those of the histories, as the intervals are.
    seconds = pd.read_csv(tmp_path / "reports/tiny/history.csv")["seconds"].sum()
    assert f" epochs, {seconds:,.0f} s of training." in page


def test_results_are_found_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_study(tmp_path, ["budget"])
    monkeypatch.setenv("HPSEARCH_STORAGE", f"sqlite:///{tmp_path}/hpsearch.db")
    monkeypatch.setenv("HPSEARCH_RUNS", str(tmp_path / "runs"))
    assert open_results(str(STUDIES / "tiny.py")).stored.folder == tmp_path / "runs/tiny"


@pytest.fixture
def clipped(tmp_path: Path) -> Path:
    """A folder with a study of a choice that may be None, and that only trials with sgd have; every other is pruned."""
    stored = make_study(tmp_path, [])
    sgd = {"lr": 0.1, "optimizer": "sgd", "momentum": 0.5, "hidden": 8, "dropout": 0.1}
    choices = CategoricalDistribution([None, 0.5])
    for number, clip in enumerate((None, 0.5, None, "absent", "absent")):
        params = sgd | ({"optimizer": "adam"} if clip == "absent" else {"clip_norm": clip})
        stored.optuna_study().add_trial(
            create_trial(
                state=TrialState.PRUNED if number % 2 else TrialState.COMPLETE,
                value=0.5 + number / 10,
                params=params,
                distributions={name: choices if name == "clip_norm" else SPACE[name] for name in params},
                intermediate_values={1: 0.5 + number / 10},
            )
        )
    return tmp_path


def test_none_as_a_choice_is_not_a_parameter_that_is_absent(clipped: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{clipped}/hpsearch.db").trials
    column = trials["params.clip_norm"]
    assert list(column[:3]) == ["None", 0.5, "None"]
    assert column[3:].isna().all()
    assert by_parameter(trials, "clip_norm") == {"0.5": [1], "None": [0, 2]}
    hpsearch_here(clipped, "report", "--study", "tiny")
    written = pd.read_csv(clipped / "reports/tiny/trials.csv", keep_default_na=False)
    assert list(written["params.clip_norm"]) == ["None", "0.5", "None", "", ""]
    page = (clipped / "reports/tiny/summary.md").read_text()
    rows = {line.split(" | ")[0]: line for line in page.partition("## Best trials")[2].splitlines() if " | " in line}
    assert rows["| 0"].endswith("| None |")
    assert rows["| 4"].endswith("| - |")
    capsys.readouterr()
    hpsearch_here(clipped, "status", "--study", "tiny")
    shown = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert "clip_norm=None" in shown["0"]
    assert "clip_norm" not in shown["4"]


def test_slices_and_parallel_coordinates_show_pruned_trials_too(clipped: Path) -> None:
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{clipped}/hpsearch.db")
    space = distributions(results.stored)
    slices = report_plots.plot_slices(results.trials, space, results.measure)
    axes = next(axes for axes in slices.axes if axes.get_xlabel() == "clip_norm")
    points = {found.get_label(): np.asarray(found.get_offsets()) for found in axes.collections}
    # None is the first choice, 0.5 the second; trials 3 and 4 have neither.
    assert {label: [round(x) for x in xy[:, 0]] for label, xy in points.items()} == {"pruned": [1], "complete": [0, 0]}
    assert sorted(points["complete"][:, 1]) == pytest.approx([0.5, 0.7])
    parallel = report_plots.plot_parallel(results.trials, space, results.measure)
    pruned, complete = (found for found in parallel.axes[0].collections if len(found.get_paths()) in (2, 3))
    assert [len(pruned.get_paths()), len(complete.get_paths())] == [2, 3]
    position = list(space).index("clip_norm")
    heights = [path.vertices[position][1] for path in complete.get_paths()]
    assert heights == [0.0, 0.0, report_plots._ABSENT]


def test_only_pruned_trials_have_slices_as_well(tmp_path: Path) -> None:
    make_study(tmp_path, ["pruned"] * 3)
    hpsearch_here(tmp_path, "report", "--study", "tiny")
    assert {"slices", "parallel"} <= {path.stem for path in (tmp_path / "reports/tiny/plots").iterdir()}


@pytest.mark.parametrize(("count", "few"), [(12, True), (50, False)])
def test_importances_of_few_trials_say_so_on_the_picture(tmp_path: Path, count: int, few: bool) -> None:
    make_study(tmp_path, ["budget"] * count)
    results = open_results(str(STUDIES / "tiny.py"), storage=f"sqlite:///{tmp_path}/hpsearch.db")
    figure, _ = _plots(results, {"lr": 0.7, "hidden": 0.3})["importances"]
    assert (f"From {count} complete trials only" in figure.axes[0].get_title()) == few

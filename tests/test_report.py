"""`hpsearch report`: its tables against the database, its pages and plots for studies of every kind and size."""

import re
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import matplotlib.image
import pandas as pd
import pytest
from matplotlib.figure import Figure

from hpsearch import UsageError
from hpsearch.results import Results, open_results, report_plots
from hpsearch.results.figures import write_figure
from hpsearch.results.report import best_frame, endings_frame, write_report
from hpsearch.results.tables import trials_frame
from support import STUDIES
from support.finished_study import make_study
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

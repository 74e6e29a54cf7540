"""`hpsearch status`: what a database holds, whoever made it, without loading what it does not need."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpsearch import UsageError
from support.command_line import environment, hpsearch
from support.finished_study import make_study
from support.in_process import hpsearch_here


def lines(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """Return the words of each line that `hpsearch status` prints."""
    assert hpsearch_here(folder, "status", *arguments) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder with studies of plain Optuna: minimising, of two objectives, with a trial of ask and tell, empty."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = f"sqlite:///{tmp_path}/hpsearch.db"
    down = optuna.create_study(study_name="down", storage=storage, direction="minimize")
    down.optimize(lambda trial: trial.suggest_float("x[/b]", 0, 1) * 0 + 3 - trial.number, n_trials=3)
    two = optuna.create_study(study_name="two", storage=storage, directions=["minimize", "maximize"])
    two.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 1.0), n_trials=2)
    told = optuna.create_study(study_name="told[/b]", storage=storage, direction="maximize")
    told.tell(told.ask(), 0.25)
    told.tell(told.ask(), float("inf"))
    told.tell(told.ask(), state=TrialState.FAIL)
    told.ask()
    optuna.create_study(study_name="empty", storage=storage)
    return tmp_path


def test_every_study_has_its_line_whoever_made_it(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(foreign, ["budget", "pruned", None])
    found = {words[0]: words[1:] for words in lines(foreign, capsys)}
    assert found["down"] == ["3", "0", "0", "0", "0", "0", "1.0000", "2"]
    assert found["two"] == ["2", "0", "0", "0", "0", "0", "-", "-"]
    assert found["told[/b]"] == ["2", "0", "0", "1", "1", "0", "inf", "1"]
    assert found["empty"] == ["0", "0", "0", "0", "0", "0", "-", "-"]
    assert found["tiny"][:6] == ["1", "1", "0", "0", "0", "1"]
    assert (found["tiny"][6], found["tiny"][8]) == ("accuracy", "0")


def test_a_study_of_another_tool_is_shown_in_detail(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = lines(foreign, capsys, "--study", "down")
    best = [words for words in found if words[-1].startswith("x[/b]=")]
    assert [words[:4] for words in best] == [
        ["2", "1.0000", "-", "complete"],
        ["1", "2.0000", "-", "complete"],
        ["0", "3.0000", "-", "complete"],
    ]
    found = lines(foreign, capsys, "--study", "told[/b]")
    assert found[-1] == ["trial", "2", "failed:", "unknown", "error"]
    assert "has 2 objectives" in " ".join(lines(foreign, capsys, "--study", "two")[-1])
    assert len(lines(foreign, capsys, "--study", "empty")) == 2


def test_the_best_come_first_the_earliest_of_equals_before_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = make_study(tmp_path, ["budget"] * 12 + ["failed"])
    study = stored.optuna_study()
    top = max(trial.value or 0.0 for trial in study.trials if trial.state == TrialState.COMPLETE)
    study.add_trial(create_trial(value=top))
    found = lines(tmp_path, capsys, "--study", "tiny")
    expected = sorted(
        study.get_trials(states=[TrialState.COMPLETE]), key=lambda trial: (-(trial.value or 0), trial.number)
    )
    shown = [words[:2] for words in found if len(words) > 2 and words[0].isdigit()]
    assert shown == [[str(trial.number), f"{trial.value:.4f}"] for trial in expected[:10]]
    assert found[-1] == ["trial", "12", "failed:", "ValueError:", "the", "user's", "model", "is", "broken"]
    assert ["files", "in", "runs/tiny/"] in found


def test_an_unknown_study_is_one_line(foreign: Path) -> None:
    with pytest.raises(
        UsageError, match=r"no study 'up' in sqlite:///hpsearch\.db: it has down, empty, told\[/b\], two"
    ):
        hpsearch_here(foreign, "status", "--study", "up")


def test_status_and_studies_import_neither_torch_nor_pandas(foreign: Path) -> None:
    program = (
        "import sys; from hpsearch.cli.app import cli; cli.main({}, standalone_mode=False); "
        "print(*{{'torch', 'pandas', 'sklearn', 'matplotlib'}} & sys.modules.keys())"
    )
    for arguments in (["status"], ["status", "--study", "down"], ["studies"]):
        done = subprocess.run(
            [sys.executable, "-c", program.format(arguments)],
            cwd=foreign,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "", done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hpsearch run --study ti", {"tiny"}),
        ("hpsearch report --name t", {"two", "told[/b]"}),
        ("hpsearch status --study ", {"down", "two", "told[/b]", "empty"}),
        ("hpsearch ret", {"retrain"}),
    ],
)
def test_the_shell_completes_commands_and_studies(foreign: Path, words: str, expected: set[str]) -> None:
    position = str(len(words.split(" ")) - 1)
    extra = {"_HPSEARCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": position}
    program = "import sys; sys.argv = ['hpsearch']; from hpsearch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=foreign,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=True,
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == expected
    assert done.stderr == ""


def test_completion_without_a_database_is_silent(tmp_path: Path) -> None:
    extra = {"_HPSEARCH_COMPLETE": "bash_complete", "COMP_WORDS": "hpsearch status --study t", "COMP_CWORD": "3"}
    program = "import sys; sys.argv = ['hpsearch']; from hpsearch.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_arguments_shows_its_help(tmp_path: Path) -> None:
    done = hpsearch(cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")


def test_in_a_pipe_nothing_is_folded_or_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = "a study of a name that is longer than any terminal is wide, " * 4
    optuna.create_study(study_name=name.strip(), storage=f"sqlite:///{tmp_path}/hpsearch.db", direction="maximize")
    hpsearch_here(tmp_path, "status")
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 2
    assert shown[1].startswith(f"{name.strip()}  ")
    monkeypatch.setenv("COLUMNS", "60")
    hpsearch_here(tmp_path, "status")
    assert len(capsys.readouterr().out.splitlines()) > 2

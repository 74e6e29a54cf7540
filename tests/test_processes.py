"""How commands start and end: what is in the working folder, what the user's code leaves running, what is not there."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import sqlalchemy.exc

from hpsearch.executors import processes
from hpsearch.search.storage import Storage
from support import STUDIES
from support.command_line import Started, environment, hpsearch, states, wait_for
from support.in_process import hpsearch_here

RUN = ("run", "--study", "tiny", "--n-trials", "2", "--sampler", "random", "--pruner", "none")
# As the installed command is: the folder of its own file is where it looks for modules first.
INSTALLED = (sys.executable, "-P", "-c", "import sys; sys.argv[0] = 'hpsearch'; from hpsearch.cli import main; main()")
THREAD = "import threading, time; threading.Thread(target=time.sleep, args=(600,), name='keeper').start()\n"


@pytest.mark.parametrize("command", [INSTALLED, (sys.executable, "-m", "hpsearch")], ids=["installed", "module"])
def test_a_users_file_hides_no_module_of_pythons(tmp_path: Path, command: tuple[str, ...]) -> None:
    for name in ("copy", "random", "socket", "tempfile", "optuna", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')")
    # PYTHONSAFEPATH would be no merit of ours.
    run = subprocess.run(
        [*command, *RUN, "--workers", "1"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "wrong module" not in run.stderr
    assert states(tmp_path / "hpsearch.db", "tiny")["COMPLETE"] == 2


def test_workers_look_for_modules_where_the_supervisor_does(tmp_path: Path) -> None:
    text = (STUDIES / "tiny.py").read_text()
    (tmp_path / "beside.py").write_text("EPOCHS = 1")
    (tmp_path / "mine.py").write_text(
        "import beside, os, sys\n"
        "print(os.getpid(), sys.path, os.environ.get('PYTHONSAFEPATH'), file=open('paths', 'a'))\n"
        + text.replace("epochs=8", "epochs=beside.EPOCHS")
    )
    run = hpsearch("run", "--study", "./mine.py", "--n-trials", "1", "--workers", "1", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "paths").read_text().splitlines()
    assert len({line.partition(" ")[0] for line in lines}) == 2
    assert len({line.partition(" ")[2] for line in lines}) == 1


def test_a_thread_of_the_users_code_does_not_keep_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(THREAD + (STUDIES / "tiny.py").read_text())
    run = hpsearch("run", "--study", "./mine.py", "--n-trials", "1", "--workers", "1", cwd=tmp_path, timeout=90)
    assert run.returncode == 0, run.stderr
    assert "Best trial" in run.stdout
    assert "a thread of your code, keeper, did not end; it was stopped" in run.stderr


def test_a_thread_of_the_users_code_does_not_keep_a_comparison(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(THREAD + (STUDIES / "tiny.py").read_text())
    arguments = ("--strategies", "random,tpe", "--repeats", "1", "--epoch-budget", "8", "--workers", "1")
    run = hpsearch("compare", "--study", "./mine.py", *arguments, cwd=tmp_path, timeout=90)
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "reports" / "mine" / "compare.png").exists()


def test_nothing_outlives_a_run(tmp_path: Path) -> None:
    run = Started(*RUN, "--workers", "2", cwd=tmp_path)
    wait_for(lambda: states(tmp_path / "hpsearch.db", "tiny")["RUNNING"])
    below = run.workers()
    assert len(below) >= 3
    assert run.wait() == 0
    # The one that keeps track of shared memory ends by itself, a moment later.
    _, left = psutil.wait_procs(below, timeout=0.5)
    assert [process.pid for process in left if process.status() != psutil.STATUS_ZOMBIE] == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no server")
def test_the_server_of_the_workers_begins_with_signals_blocked(tmp_path: Path) -> None:
    def servers() -> list[psutil.Process]:
        return [process for process in run.workers() if "forkserver" in " ".join(process.cmdline())]

    run = Started(*RUN, "--workers", "1", cwd=tmp_path)
    wait_for(servers)
    # A Ctrl-C while it imports torch would end it with a traceback.
    status = Path(f"/proc/{servers()[0].pid}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert all(blocked & 1 << number - 1 for number in processes.SIGNALS), hex(blocked)
    assert run.wait() == 0


def test_a_database_that_is_locked_at_the_start_is_one_line(tmp_path: Path) -> None:
    assert hpsearch(*RUN, "--workers", "0", cwd=tmp_path).returncode == 0
    run = Started(*RUN, "--n-trials", "4", "--workers", "1", "--outage", "2", cwd=tmp_path)
    with closing(sqlite3.connect(tmp_path / "hpsearch.db", timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        assert run.wait(120) == 1
        connection.execute("ROLLBACK")
    said = run.err.read_text()
    assert "Traceback" not in said
    assert "database is locked" in said
    assert run.workers() == []


def test_what_fails_before_the_first_trial_leaves_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(storage: Storage, outage: float) -> None:
        assert processes._children
        raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("the server is gone"))

    monkeypatch.setattr(Storage, "serve", away)
    with pytest.raises(sqlalchemy.exc.OperationalError):
        hpsearch_here(tmp_path, *RUN, "--workers", "1")
    assert not processes._children

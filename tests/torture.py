"""A torture run: a search whose workers and supervisors are killed, again and again, at random moments.

    python tests/torture.py                              one supervisor on SQLite, compared with the undisturbed study
    python tests/torture.py --supervisors 2              two at once
    python tests/torture.py --postgres --supervisors 2   on a real PostgreSQL
    python tests/torture.py --postgres --outage 20       the server stopped for 20 s in the middle

Prints what was done and what was found, and exits 1 if anything was lost.
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy
from commands import Started, hpsearch


def main() -> int:
    """Run the torture that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--worker-kills", type=int, default=15)
    parser.add_argument("--supervisor-kills", type=int, default=5)
    parser.add_argument("--supervisors", type=int, default=1)
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--outage", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = torture(Path(folder), **vars(options))
    for line in found.lines:
        print(line)
    return 1 if found.lost else 0


class Findings:
    """What a torture run did and found; `lost` lists what should not be."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.lost: list[str] = []

    def expect(self, holds: bool, what: str) -> None:
        """Note an expectation and whether it was met."""
        self.lines.append(f"{'ok  ' if holds else 'LOST'} {what}")
        if not holds:
            self.lost.append(what)


def torture(
    folder: Path,
    *,
    trials: int,
    worker_kills: int,
    supervisor_kills: int,
    supervisors: int = 1,
    sampler: str = "tpe",
    postgres: bool = False,
    outage: float = 0.0,
    seed: int = 0,
) -> Findings:
    """Run `trials` trials in `folder` through all those kills, and look at what is in the database afterwards."""
    found = Findings()
    dice = random.Random(seed)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_postgres(folder)) if postgres else None
        url = server.url if server else "sqlite:///hpsearch.db"
        command = [
            "run",
            "--study",
            "tiny",
            "--n-trials",
            str(trials),
            "--sampler",
            sampler,
            "--seed",
            "7",
            "--pruner",
            "median",
        ]
        command += ["--workers", "1", "--max-retries", "1000", "--storage", url]
        runs = [Started(*command, cwd=folder, name=f"run{i}") for i in range(supervisors)]
        began = time.monotonic()
        if outage and server:
            _wait_for_training(runs)
            time.sleep(3)
            server.stop()
            time.sleep(outage)
            server.start()
        back: list[float] = []
        kinds = ["worker"] * worker_kills + ["supervisor"] * supervisor_kills
        dice.shuffle(kinds)
        done = Counter[str]()
        while kinds and any(run.process.poll() is None for run in runs):
            _wait_for_training(runs)
            time.sleep(dice.uniform(0.0, 0.5 / supervisors))
            index = dice.randrange(supervisors)
            if _kill(runs[index], kinds[-1]):
                done[kinds.pop()] += 1
            if runs[index].process.poll() == 0:
                # Finished before the kills: there are too few trials for them.
                break
            if runs[index].process.poll() is not None:
                at = time.monotonic()
                runs[index] = Started(*command, cwd=folder, name=f"run{index}")
                # Waiting would leave another supervisor in peace.
                if supervisors == 1:
                    _wait_for_training([runs[index]])
                    back.append(time.monotonic() - at)
        codes = [run.wait(600) for run in runs]
        found.lines.append(
            f"{done['worker']} worker kills, {done['supervisor']} supervisor kills, {trials} trials, {supervisors} "
            f"supervisor(s), {sampler}, {'PostgreSQL' if postgres else 'SQLite'}, {time.monotonic() - began:.0f} s"
            + (f", server away for {outage:.0f} s" if outage else "")
            + (f"; training again after a supervisor's death: {max(back):.1f} s at most" if back else "")
        )
        found.expect(done["worker"] >= worker_kills, f"{worker_kills} worker kills happened")
        found.expect(done["supervisor"] >= supervisor_kills, f"{supervisor_kills} supervisor kills happened")
        found.expect(codes == [0] * supervisors, f"exit codes are {codes}")
        rows = study_rows(_absolute(url, folder))
        _check(found, rows, trials, folder)
        if supervisors == 1:
            # Never killed, in the same folder, into another database: only the kills differ.
            shutil.copytree(folder / "runs", folder / "tortured-runs")
            quiet = [word if word != url else "sqlite:///undisturbed.db" for word in command]
            undisturbed = hpsearch(*quiet, cwd=folder, timeout=600)
            found.expect(undisturbed.returncode == 0, "the undisturbed study runs")
            same = study_rows(_absolute("sqlite:///undisturbed.db", folder)) == rows
            found.expect(same, "params, values, states and every report equal the undisturbed study's")
    return found


def _check(found: Findings, rows: list[dict[str, Any]], trials: int, folder: Path) -> None:
    states = Counter(row["state"] for row in rows)
    finished = states["COMPLETE"] + states["PRUNED"]
    found.expect(finished == trials, f"{finished} finished trials: {dict(states)}")
    found.expect(states["RUNNING"] == states["WAITING"] == 0, "none is RUNNING or WAITING")
    found.expect([row["number"] for row in rows] == list(range(len(rows))), "the numbers have no gap and no double")
    whole = all(len(row["reports"]) == row["intervals"] for row in rows if row["state"] != "FAIL")
    found.expect(whole, "every interval of every trial is reported exactly once")
    points = [tuple(row["params"].items()) for row in rows]
    found.expect(len(points) == len(set(points)), "no configuration was tried twice")
    left = [str(path) for path in (folder / "runs").rglob("last*.pt")]
    found.expect(not left, "no resume point is left behind")
    weights = [(folder / "runs" / "tiny" / str(row["number"]) / "best.pt").exists() for row in rows]
    found.expect(all(weights), "every trial has its best weights")


def study_rows(url: str) -> list[dict[str, Any]]:
    """Return every trial's number, state, value, params and reports, by plain SQL."""
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:

        def pairs(query: str, trial_id: int) -> dict[Any, Any]:
            return dict(connection.execute(sqlalchemy.text(query), {"id": trial_id}).all())

        trials = connection.execute(sqlalchemy.text("SELECT trial_id, number, state FROM trials ORDER BY number"))
        rows = [
            {
                "number": number,
                "state": str(state),
                "value": pairs("SELECT objective, value FROM trial_values WHERE trial_id = :id", trial_id).get(0),
                "params": pairs(
                    "SELECT param_name, param_value FROM trial_params WHERE trial_id = :id ORDER BY 1", trial_id
                ),
                "reports": pairs(
                    "SELECT step, intermediate_value FROM trial_intermediate_values WHERE trial_id = :id ORDER BY 1",
                    trial_id,
                ),
                "intervals": int(
                    pairs(
                        "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = :id AND key = 'intervals'",
                        trial_id,
                    ).get("intervals", -1)
                ),
            }
            for trial_id, number, state in trials.all()
        ]
    engine.dispose()
    return rows


def _absolute(url: str, folder: Path) -> str:
    return url.replace("sqlite:///", f"sqlite:///{folder}/")


def _training(run: Started) -> psutil.Process | None:
    """Return the worker of a run, the youngest process under it, if it is past its start."""
    try:
        workers = [process for process in run.workers() if "forkserver" in " ".join(process.cmdline())]
        # The first is the server that workers are forked from.
        return max(workers, key=lambda process: process.create_time()) if len(workers) > 1 else None
    except (psutil.NoSuchProcess, ValueError):
        return None


def _wait_for_training(runs: list[Started], timeout: float = 120) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for run in runs:
            if run.process.poll() is not None or _training(run) is not None:
                return
        time.sleep(0.02)
    raise TimeoutError("no worker within two minutes")


def _kill(run: Started, kind: str) -> bool:
    try:
        if kind == "supervisor":
            run.process.kill()
            run.process.wait()
            return True
        worker = _training(run)
        if worker is not None:
            worker.kill()
        return worker is not None
    except psutil.NoSuchProcess:
        return False


class _Server:
    """A PostgreSQL server that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        import pgserver

        self._folder = folder
        self._server: Any = pgserver.get_server(folder, cleanup_mode="stop")
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://")

    def stop(self) -> None:
        """Stop the server at once, its clients' connections cut."""
        import pgserver

        pgserver.pg_ctl(["-m", "immediate", "stop"], pgdata=self._folder, user=self._server.system_user)

    def start(self) -> None:
        """Start it again, on the same socket."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop it for good."""
        self._server.cleanup()


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[_Server]:
    server = _Server(folder / "postgres")
    try:
        yield server
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())

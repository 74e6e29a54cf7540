"""A chaos run: a search that is killed, frozen, locked out and damaged; which faults, and when, follows from a seed.

    python tests/chaos.py                                   seed 0
    python tests/chaos.py 0-49                              fifty seeds, one after the other
    python tests/chaos.py 7 --keep chaos7                   keep the folder to look at
    python tests/chaos.py --supervisors 2 --postgres        what is given is not drawn
    python tests/chaos.py --faults worker,supervisor --count 20 --trials 40 --pruner median

Each seed draws the database, one or two supervisors of one worker each, sampler, pruner, and a list of faults with
their moments. A supervisor that ended before the study is finished is started again by the same command. Afterwards
exactly the trials asked for must be there, whole, with their files and nothing else. Those of one supervisor must
equal the same study never disturbed, bit for bit; each one of two supervisors', or of one that had to go on without
its database, must equal the same configuration trained here without interruption. Prints what was planned, done and
found, and exits 1 if anything was lost.
"""

import argparse
import contextlib
import csv
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import optuna
import psutil
import sqlalchemy
import torch
from optuna.trial import FrozenTrial, TrialState

from hpsearch import Dataset, Recipe, Study, checkpoint
from hpsearch.errors import CheckpointError
from hpsearch.executors.trial_files import BEST_WEIGHTS, RESUME_POINT
from hpsearch.seeding import derive_seed
from hpsearch.stopping import Stopper
from hpsearch.study import load_study
from hpsearch.training import Run, evaluate, train
from support import STUDIES
from support.command_line import Started, hpsearch
from support.databases import PostgresServer

STUDY, STUDY_SEED = "rungs", 7
MARK = "HPSEARCH_CHAOS"
SAMPLERS = ("tpe", "random", "grid")
# With these factors all rungs of 16 intervals are met.
PRUNERS = ("median", "hyperband", "asha:reduction_factor=2")

# The longest that the database may be away, and for how long a supervisor is frozen for another to take its trials.
OUTAGE_SECONDS = 15
LONGER_THAN_THE_GRACE = (22.0, 28.0)

# What a fault does to the processes: those that end a supervisor have it started again.
ENDS_SUPERVISOR = ("supervisor", "group", "interrupt", "damage")
ENDS_WORKER = ("worker", "forkserver and worker", *ENDS_SUPERVISOR)
FREEZES = ("freeze supervisor", "freeze group")
DATABASE_FAULTS = {"sqlite": ("lock",), "postgresql": ("outage", "silence")}

# A moment is a delay, in seconds of a range, after something that can be seen from outside.
MOMENTS = {
    "started": (0.0, 5.0),  # a supervisor
    "forked": (0.0, 0.5),  # a worker, which replays a resume point if there is one
    "saved": (0.0, 0.03),  # a resume point: its report and the verdict come next
    "training": (0.0, 0.6),  # any time after that
    "ended": (0.0, 0.03),  # a trial: its best weights are written, its outcome not yet stored
}
# A moment that does not come for this long is not waited for.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault, when it comes, which supervisor it hits, and how long it lasts if it does."""

    kind: str
    moment: str
    delay: float
    target: int
    seconds: float

    def __str__(self) -> str:
        lasts = f" for {self.seconds:.1f} s" if self.kind in (*FREEZES, "lock", "outage", "silence") else ""
        return f"{self.kind}{lasts}, {self.delay:.3f} s after {self.moment} (supervisor {self.target})"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a seed stands for."""

    seed: int
    database: str
    supervisors: int
    sampler: str
    pruner: str
    trials: int
    faults: tuple[Fault, ...]

    def __str__(self) -> str:
        return (
            f"seed {self.seed}: {self.database}, {self.supervisors} supervisor{'s' * (self.supervisors > 1)}, "
            f"{self.sampler}+{self.pruner}, {self.trials} trials, {len(self.faults)} faults"
        )


def draw(
    seed: int,
    *,
    database: str | None = None,
    supervisors: int | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    trials: int | None = None,
    faults: tuple[str, ...] | None = None,
    count: int | None = None,
) -> Plan:
    """Return the plan of a seed; what is given is not drawn. `faults` are the kinds to draw from."""
    dice = random.Random(seed)
    drawn = (dice.choice(("sqlite", "postgresql")), dice.choice((1, 2)), dice.choice(SAMPLERS), dice.choice(PRUNERS))
    count = count or dice.randint(5, 8)
    database, supervisors = database or drawn[0], supervisors or drawn[1]
    possible = (*ENDS_WORKER, "forkserver", *FREEZES, *DATABASE_FAULTS[database])
    kinds = [kind for kind in possible if faults is None or kind in faults]
    planned: list[Fault] = []
    for _ in range(count):
        before = planned[-1] if planned else None
        moments = ["saved", "training", "ended"]
        if before is None or before.kind in ENDS_SUPERVISOR:
            moments.append("started")
        if before is None or before.kind in ENDS_WORKER:
            moments.append("forked")
        kind, moment = dice.choice(kinds), dice.choice(moments)
        delay = dice.uniform(*MOMENTS[moment])
        same = before is not None and moment in ("started", "forked")
        target = dice.randrange(supervisors)
        lengths = [(0.2, 2.0), (3.0, 10.0)]
        if supervisors > 1 and kind in FREEZES:
            lengths.append(LONGER_THAN_THE_GRACE)
        planned.append(
            Fault(
                kind=kind,
                moment=moment,
                delay=delay,
                target=before.target if same and before else target,
                seconds=dice.uniform(*dice.choice(lengths)),
            )
        )
    return Plan(
        seed=seed,
        database=database,
        supervisors=supervisors,
        sampler=sampler or drawn[2],
        pruner=pruner or drawn[3],
        # The grid has 18 points. Two supervisors share the trials, and their faults.
        trials=trials or (18 if (sampler or drawn[2]) == "grid" else 18 * supervisors),
        faults=tuple(planned),
    )


@dataclass
class Findings:
    """What a run did and found; `lost` lists what should not be."""

    lines: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    say: Callable[[str], None] = lambda line: None

    def note(self, line: str) -> None:
        """Keep and say a line."""
        self.lines.append(line)
        self.say(line)

    def expect(self, holds: object, what: str, *details: object) -> None:
        """Note an expectation and whether it was met; if not, with the details."""
        self.note(f"{'ok  ' if holds else 'LOST'} {what}")
        if not holds:
            self.lost.append(what)
            for detail in details[:10]:
                self.note(f"       {detail}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def main() -> int:
    """Run the seeds that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", default="0", help="a seed or a range, such as 0-49")
    parser.add_argument("--sqlite", dest="database", action="store_const", const="sqlite")
    parser.add_argument("--postgres", dest="database", action="store_const", const="postgresql")
    parser.add_argument("--supervisors", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--pruner")
    parser.add_argument("--trials", type=int)
    parser.add_argument("--faults", type=lambda text: tuple(text.split(",")), help="the kinds to draw from")
    parser.add_argument("--count", type=int, help="how many faults")
    parser.add_argument("--limit", type=float, default=300.0, metavar="SECONDS", help="for one seed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to keep what lost something")
    options = vars(parser.parse_args())
    first, _, last = options.pop("seeds").partition("-")
    limit, keep = options.pop("limit"), options.pop("keep")
    torch.set_num_threads(1)
    # So that what was started is ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    failed = []
    for seed in range(int(first), int(last or first) + 1):
        plan = draw(seed, **options)
        with tempfile.TemporaryDirectory(prefix="chaos", ignore_cleanup_errors=True) as name:
            found = chaos(plan, Path(name), limit=limit, say=lambda line: print(line, flush=True))
            if found.lost:
                failed.append(seed)
                if keep:
                    shutil.rmtree(keep / str(seed), ignore_errors=True)
                    shutil.copytree(name, keep / str(seed))
                    (keep / str(seed) / "chaos.txt").write_text(f"{found}\n")
    if failed:
        print(f"LOST under seed{'s' * (len(failed) > 1)} {', '.join(map(str, failed))}")
    return 1 if failed else 0


def chaos(
    plan: Plan, folder: Path, *, limit: float = 300.0, say: Callable[[str], None] = lambda line: None
) -> Findings:
    """Carry out a plan in `folder` and look at what is there afterwards.

    It runs on one thread of torch, as workers do; equality bit for bit is promised on one only.
    """
    found = Findings(say=say)
    found.note(str(plan))
    for fault in plan.faults:
        found.note(f"     {fault}")
    with contextlib.ExitStack() as stack:
        server = PostgresServer() if plan.database == "postgresql" else None
        if server:
            stack.callback(server.close)
        url = server.url if server else f"sqlite:///{folder}/hpsearch.db"
        campaign = _Campaign(plan, folder, url, server, found, limit)
        campaign.run()
        seconds = time.monotonic() - campaign.began
        found.note(f"     {campaign.hits} of {len(plan.faults)} faults hit; the study took {seconds:.0f} s")
        _check(plan, folder, url, found)
    return found


class _Campaign:
    """The supervisors of a plan, and what is done to them."""

    def __init__(
        self, plan: Plan, folder: Path, url: str, server: PostgresServer | None, found: Findings, limit: float
    ) -> None:
        self.plan = plan
        self.folder = folder
        self.url = url
        self.server = server
        self.found = found
        self.limit = limit
        self.mark = uuid.uuid4().hex
        self.began = time.monotonic()
        self.runs: list[_Supervisor] = []
        self.starts: Counter[int] = Counter()
        # What is to be ended, and when, by what it hit.
        self.lasting: dict[str, tuple[float, Callable[[], object]]] = {}
        # When each moment was seen last; those of a supervisor by its index as well.
        self.seen: dict[tuple[str, int | None], float] = {}
        self.stamps: dict[str, int] = {}
        self.back_at = self.struck = 0.0
        self.hits = 0

    def run(self) -> None:
        """Run the study to its end through all faults."""
        self.runs = [self._start(index) for index in range(self.plan.supervisors)]
        try:
            for fault in self.plan.faults:
                if not self._wait_for(fault):
                    break
                self.struck = time.monotonic()
                hit = self._strike(fault)
                self.hits += hit
                self._note(f"{fault.kind} on {fault.target}" + ("" if hit else ": nothing to hit"))
            self._wait_until(lambda: all(run.code is not None for run in self.runs))
        finally:
            self._end_lasting(at_once=True)
            finished = all(run.code == 0 for run in self.runs)
            self.found.expect(finished, f"every supervisor ends, with exit code 0: {[run.code for run in self.runs]}")
            self._expect_no_processes()

    def _note(self, line: str) -> None:
        self.found.note(f"{time.monotonic() - self.began:5.1f} {line}")

    def _start(self, index: int) -> "_Supervisor":
        self.starts[index] += 1
        self.seen["started", index] = time.monotonic()
        started = Started(
            *command(self.plan, self.url), cwd=self.folder, name=f"run{index}.{self.starts[index]}", **{MARK: self.mark}
        )
        return _Supervisor(started)

    # Waiting.

    def _wait_for(self, fault: Fault) -> bool:
        """Wait for the moment of a fault; return False if the study ended before."""
        own = fault.target if fault.moment in ("started", "forked") else None
        event = "saved" if fault.moment == "training" else fault.moment, own
        armed = time.monotonic()
        due: float | None = None

        def has_come() -> bool:
            nonlocal due
            now = time.monotonic()
            if due is None and self.seen.get(event, 0.0) > self.struck:
                due = self.seen[event] + fault.delay
            return now >= (due or armed + PATIENCE_SECONDS)

        self._wait_until(lambda: has_come() or all(run.code is not None for run in self.runs))
        return any(run.code is None for run in self.runs)

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        while not condition() and time.monotonic() - self.began < self.limit:
            self._look()
            self._end_lasting()
            for index, run in enumerate(self.runs):
                if run.code is None and run.started.process.poll() is not None:
                    self._ended(index, run)
            time.sleep(0.001)

    def _look(self) -> None:
        """Note what can be seen from outside: new workers, resume points and best weights."""
        now = time.monotonic()
        for event, name in (("saved", RESUME_POINT), ("ended", BEST_WEIGHTS)):
            stamp = max(map(_stamp, (self.folder / "runs").glob(f"*/*/{name}")), default=0)
            if stamp > self.stamps.get(event, 0):
                self.stamps[event] = stamp
                self.seen[event, None] = now
        for index, run in enumerate(self.runs):
            if now - run.looked > 0.02 and run.code is None:
                run.looked = now
                workers = {process.pid for process in run.processes("worker")}
                if workers - run.workers:
                    self.seen["forked", index] = now
                run.workers |= workers

    def _ended(self, index: int, run: "_Supervisor") -> None:
        """Look at how a supervisor ended, and start it again if the study is not finished."""
        code = run.started.process.returncode
        allowed = {0} | run.may_end_with
        said = run.started.err.read_text().splitlines()
        # One that finds no database at its start has nothing to wait for; a frozen supervisor may hold SQLite's lock.
        cut_off = bool(self.lasting) or self.back_at > run.since
        if cut_off and any("database" in line for line in said[-3:]):
            # A start that finds no server answers as to a wrong address.
            allowed |= {1, 2}
        if code not in allowed:
            self.found.expect(False, f"supervisor {index} ends with one of {sorted(allowed)}: {code}", *said[-8:])
        # Ctrl-C before our own code runs is the interpreter's affair.
        if code != -signal.SIGINT and any("Traceback" in line for line in said):
            self.found.expect(False, f"no traceback in {run.started.err.name}", *said[-8:])
        if code == 0 or self.starts[index] > 40:
            run.code = code
            return
        self._note(f"supervisor {index} ended with {code}, started again")
        if code > 0:
            time.sleep(0.5)
        self.runs[index] = self._start(index)

    # Faults.

    def _strike(self, fault: Fault) -> bool:
        """Do what a fault does; return whether there was something to do it to."""
        run = self.runs[fault.target]
        match fault.kind:
            case "worker" | "forkserver":
                return run.kill(fault.kind)
            case "forkserver and worker":
                return any([run.kill("forkserver"), run.kill("worker")])
            case "supervisor" if run.code is None:
                run.may_end_with.add(-signal.SIGKILL)
                run.started.process.kill()
            case "group" if run.code is None:
                run.kill_group()
            case "interrupt" if run.code is None:
                run.may_end_with.add(130)
                if time.monotonic() - run.since < 3.0:
                    run.may_end_with.add(-signal.SIGINT)
                run.signal_group(signal.SIGINT)
            case "freeze supervisor" if run.code is None:
                self._last(fault, lambda: run.signal(signal.SIGSTOP), lambda: run.signal(signal.SIGCONT))
            case "freeze group" if run.code is None:
                self._last(fault, lambda: run.signal_group(signal.SIGSTOP), lambda: run.signal_group(signal.SIGCONT))
            case "outage" if self.server:
                self._last(fault, self.server.stop, self.server.start)
            case "silence" if self.server:
                self._last(fault, self.server.fall_silent, self.server.speak)
            case "lock":
                return self._lock(fault)
            case "damage":
                return self._damage()
            case _:
                return False
        return True

    def _last(self, fault: Fault, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Begin a fault that ends later; one that hit the same before ends now."""
        what = f"supervisor {fault.target}" if fault.kind in FREEZES else "database"
        if what in self.lasting:
            self._end(what)
        begin()
        self.lasting[what] = (time.monotonic() + fault.seconds, end)

    def _end(self, what: str) -> None:
        self.lasting.pop(what)[1]()
        self.back_at = time.monotonic()
        self._note(f"{what} is back")

    def _end_lasting(self, *, at_once: bool = False) -> None:
        for what, (when, _) in list(self.lasting.items()):
            if at_once or time.monotonic() >= when:
                self._end(what)

    def _lock(self, fault: Fault) -> bool:
        """Take SQLite's only lock, as another program may."""
        connection = sqlite3.connect(self.folder / "hpsearch.db", timeout=5, isolation_level=None)
        try:
            self._last(fault, lambda: connection.execute("BEGIN IMMEDIATE"), connection.close)
        except sqlite3.OperationalError:
            # A frozen supervisor may have it.
            connection.close()
            return False
        return True

    def _damage(self) -> bool:
        """Flip bytes of the newest resume point while nobody runs."""
        for run in self.runs:
            if run.code is None:
                run.kill_group()
                run.started.process.wait()
        points = sorted((self.folder / "runs").glob(f"*/*/{RESUME_POINT}"), key=_stamp)
        if not points:
            return False
        content = bytearray(points[-1].read_bytes())
        for index in range(len(content) // 3, len(content), max(1, len(content) // 7)):
            content[index] ^= 0xFF
        points[-1].write_bytes(content)
        return True

    # The end.

    def _expect_no_processes(self) -> None:
        deadline = time.monotonic() + 10
        left = marked(self.mark)
        if all(run.code is not None for run in self.runs):
            while left and time.monotonic() < deadline:
                time.sleep(0.1)
                left = marked(self.mark)
        self.found.expect(not left, "no process is left", *(" ".join(process.cmdline()) for process in left))
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for run in self.runs:
            run.started.process.wait()


class _Supervisor:
    """One start of a supervisor, with its processes."""

    def __init__(self, started: Started) -> None:
        self.started = started
        self.since = time.monotonic()
        # The exit code, once it is not started again.
        self.code: int | None = None
        self.may_end_with: set[int] = set()
        self.workers: set[int] = set()
        self.looked = 0.0

    def processes(self, kind: str) -> list[psutil.Process]:
        """Return its forkserver, or its workers, the youngest last; those whose parent died are found as well."""
        leader = self.started.process.pid
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.Error):
                if pid == leader or os.getsid(pid) != leader:
                    continue
                process = psutil.Process(pid)
                # Workers are forked from the server, and so have its command line.
                if "forkserver" in " ".join(process.cmdline()):
                    is_server = process.ppid() == leader
                    if is_server == (kind == "forkserver") and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def kill(self, kind: str) -> bool:
        """Kill the forkserver, or the youngest worker; return whether there was one."""
        for process in self.processes(kind)[-1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
                return True
        return False

    def kill_group(self) -> None:
        """Kill the supervisor and all below it."""
        self.may_end_with.add(-signal.SIGKILL)
        self.signal_group(signal.SIGKILL)

    def signal_group(self, number: int) -> None:
        """Send a signal to the whole group."""
        with contextlib.suppress(ProcessLookupError):
            self.started.interrupt(number)

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor alone."""
        self.started.process.send_signal(number)


def command(plan: Plan, url: str) -> list[str]:
    """Return the arguments that run a plan's study."""
    line = f"run --study {STUDY} --n-trials {plan.trials} --sampler {plan.sampler} --pruner {plan.pruner}"
    return [
        *f"{line} --seed {STUDY_SEED} --workers 1 --max-retries 1000 --outage {OUTAGE_SECONDS}".split(),
        "--storage",
        url,
    ]


def marked(mark: str) -> list[psutil.Process]:
    """Return the live processes whose environment has a mark."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _stamp(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime_ns
    return 0


# What must hold afterwards.


def _check(plan: Plan, folder: Path, url: str, found: Findings) -> None:
    trials = stored_trials(url)
    states = Counter(trial.state.name for trial in trials)
    found.expect(states["COMPLETE"] + states["PRUNED"] == plan.trials == len(trials), f"all finished: {dict(states)}")
    numbers = [trial.number for trial in trials]
    found.expect(numbers == list(range(len(trials))), "the numbers have no gap and no double", numbers)
    partial = [
        f"trial {trial.number}: of {trial.user_attrs.get('intervals')} reported {sorted(trial.intermediate_values)}"
        for trial in trials
        if sorted(trial.intermediate_values) != list(range(1, trial.user_attrs.get("intervals", 0) + 1))
    ]
    found.expect(not partial, "every interval of every trial is reported", *partial)
    points = Counter(str(sorted(trial.params.items())) for trial in trials)
    twice = [point for point, times in points.items() if times > 1]
    found.expect(not twice, "no configuration was tried twice", *twice)
    _check_files(trials, folder, found)
    # While the database is away trials go on unjudged.
    unjudged = any("does not answer" in path.read_text() for path in folder.glob("run*.err"))
    if plan.supervisors == 1 and not unjudged:
        same, what = undisturbed(plan), "equals the undisturbed study's"
        differ = [line for trial, other in zip(trials, same, strict=False) for line in _differences(trial, other)]
    else:
        what = "equals the same configuration trained without interruption"
        differ = [line for trial in trials for line in _unlike_uninterrupted(trial, folder)]
    found.expect(not differ, f"every trial {what}", *differ)


def stored_trials(url: str) -> list[FrozenTrial]:
    """Return the study's trials as plain Optuna reads them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(
        url, engine_kwargs={"poolclass": sqlalchemy.NullPool}, skip_table_creation=True
    )
    try:
        return optuna.load_study(study_name=STUDY, storage=storage).get_trials()
    except KeyError:
        return []
    finally:
        storage.engine.dispose()


def _check_files(trials: list[FrozenTrial], folder: Path, found: Findings) -> None:
    runs = folder / "runs"
    there = sorted(path.name for path in runs.iterdir()) if runs.exists() else []
    found.expect(there == [STUDY], f"there is one folder for the study: {there}")
    left = [path for pattern in ("last*.pt", "*.tmp") for path in runs.rglob(pattern)]
    found.expect(not left, "neither resume points nor temporary files are left", *left)
    wrong = [line for trial in trials for line in _wrong_files(trial, runs / STUDY / str(trial.number))]
    found.expect(not wrong, "histories and best weights are those of the database", *wrong)


def _wrong_files(trial: FrozenTrial, folder: Path) -> Iterator[str]:
    """Yield what is wrong with a finished trial's files."""
    if not trial.state.is_finished():
        return
    try:
        with (folder / "history.csv").open() as file:
            rows = {int(row["interval"]): float(row["validation_accuracy"]) for row in csv.DictReader(file)}
    except OSError as error:
        rows = {}
        yield f"trial {trial.number}: {error}"
    if rows != trial.intermediate_values:
        yield f"trial {trial.number}: history.csv has {len(rows)} rows, the database {len(trial.intermediate_values)}"
    try:
        best = checkpoint.load(folder / BEST_WEIGHTS)
    except (OSError, CheckpointError) as error:
        yield f"trial {trial.number}: {error}"
        return
    if not best["model"]:
        yield f"trial {trial.number}: {BEST_WEIGHTS} has no weights"
        return
    study, data = _definition()
    recipe = study.replay(trial.params)
    assert isinstance(recipe, Recipe)
    model = recipe.model
    model.load_state_dict(best["model"])
    accuracy = evaluate(model, torch.nn.functional.cross_entropy, data.validation)["accuracy"]
    if not accuracy == best["validation_accuracy"] == trial.user_attrs.get("best_value"):
        yield (
            f"trial {trial.number}: {BEST_WEIGHTS} gives {accuracy}, says {best['validation_accuracy']}, "
            f"the database has {trial.user_attrs.get('best_value')}"
        )


@cache
def _definition() -> tuple[Study, Dataset]:
    """Return the study and its data, loaded once."""
    study = load_study(str(STUDIES / f"{STUDY}.py")).study
    return study, study.load_data()


def _differences(trial: FrozenTrial, other: FrozenTrial) -> Iterator[str]:
    """Yield what of a trial differs from the undisturbed one."""
    for name in ("state", "params", "value", "intermediate_values"):
        if getattr(trial, name) != getattr(other, name):
            yield f"trial {trial.number}: {name} {_short(getattr(trial, name))}, not {_short(getattr(other, name))}"
    for name in ("reason", "intervals", "best_value", "best_interval"):
        if trial.user_attrs.get(name) != other.user_attrs.get(name):
            yield f"trial {trial.number}: {name} {trial.user_attrs.get(name)}, not {other.user_attrs.get(name)}"


def _unlike_uninterrupted(trial: FrozenTrial, folder: Path) -> Iterator[str]:
    """Yield what of a trial differs from its params, trained here to the interval at which it ended."""
    study, data = _definition()
    run = Run(study, trial.params, data, seed=derive_seed(STUDY_SEED, "trial", trial.number))
    stopper = Stopper(study.early_stopping, study.measure)
    reason: str | None = None
    reports: dict[int, float] = {}
    for report in train(run):
        reports[report.interval] = report.value
        reason = stopper.update(report.train_value, report.value)
        if reason or report.interval == trial.user_attrs.get("intervals"):
            break
    reason = reason or ("budget" if run.step == run.total_steps else "pruned")
    if trial.intermediate_values != reports:
        yield f"trial {trial.number}: reports {_short(trial.intermediate_values)}, uninterrupted {_short(reports)}"
    if trial.user_attrs.get("reason") != reason:
        yield f"trial {trial.number}: {trial.user_attrs.get('reason')}, uninterrupted {reason}"
    if (trial.state == TrialState.COMPLETE) != (reason in ("patience", "target", "budget")):
        yield f"trial {trial.number}: {trial.state.name}, uninterrupted {reason}"
    if reports and trial.user_attrs.get("best_value") != max(reports.values()):
        yield f"trial {trial.number}: best {trial.user_attrs.get('best_value')}, not {max(reports.values())}"


def _short(value: object) -> str:
    """Return a value in few words."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key}: {item:.4g}" if isinstance(item, float) else f"{key}: {item}" for key, item in value.items()
        )
    return str(value)


def undisturbed(plan: Plan) -> list[FrozenTrial]:
    """Return the trials of a plan's study with no faults, run once and kept in the temporary folder."""
    package = sorted(Path(checkpoint.__file__).parent.rglob("*.py"))
    code = hashlib.sha256(b"".join(path.read_bytes() for path in [*package, *sorted(STUDIES.glob("*.py"))]))
    arguments = command(plan, "sqlite:///hpsearch.db")
    name = hashlib.sha256(f"{code.hexdigest()} {arguments}".encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"hpsearch-undisturbed-{name}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
            done = hpsearch(*arguments, cwd=Path(work), timeout=300)
            if done.returncode:
                raise RuntimeError(f"the undisturbed study failed:\n{done.stderr}")
            with contextlib.suppress(OSError):
                Path(work).rename(folder)
    return stored_trials(f"sqlite:///{folder}/hpsearch.db")


if __name__ == "__main__":
    sys.exit(main())

"""The supervisor: one single-threaded event loop between the database and the executor.

It claims trials, hands them out as tasks, writes down what comes back, prunes, and replaces what dies. It alone
touches the database. Writes go through an outbox in order, so that while the database is away training goes on and
nothing reported is forgotten. Only its heartbeat has a thread of its own.
"""

import contextlib
import signal
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any, Literal, Protocol

import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from hpsearch.errors import CannotContinue, HpsearchError, StorageUnavailable, TooManyFailures, TrialLost
from hpsearch.executors import Died, Ended, Event, Executor, Outcome, Reported, Task, Verdict, Warned
from hpsearch.executors.task import BEST, remove_resume_points
from hpsearch.search.heartbeat import Heartbeat
from hpsearch.search.opening import OpenStudy
from hpsearch.search.outbox import Outbox
from hpsearch.search.pruners import intervals_of, most_intervals
from hpsearch.search.space import TrialSpace
from hpsearch.search.storage import FINISHED, is_outage
from hpsearch.search.view import INTERVALS
from hpsearch.space import Params
from hpsearch.study import Study
from hpsearch.training import EpochReport, derive_seed

TICK_SECONDS = 0.1
OTHERS_SECONDS = 2.0
STOP_SECONDS = 3.0
FIRST_FAILURES = 5
FAILURES_IN_A_ROW = 10

# Divergence is a result, the worst there is: samplers learn from complete trials, some of them from no others.
WORST_VALUE = 0.0
_STATES = {
    "target": TrialState.COMPLETE,
    "patience": TrialState.COMPLETE,
    "budget": TrialState.COMPLETE,
    "diverged": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Observer(Protocol):
    """Whoever watches a run. Every method returns at once."""

    def counts(self, counts: dict[TrialState, int], limit: int) -> None:
        """Take the present number of trials in each state."""

    def started(self, task: Task, intervals_before: int) -> None:
        """A trial was handed to a worker."""

    def reported(self, number: int, report: EpochReport) -> None:
        """A trial finished an interval."""

    def ended(self, number: int, state: TrialState, outcome: Outcome) -> None:
        """A trial's end was stored."""

    def released(self, number: int) -> None:
        """A trial is no longer run here, without having ended."""

    def message(self, text: str) -> None:
        """Say something to the user."""

    def tick(self) -> None:
        """Time passed."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a run goes: finished trials in the study, retries after a death, seconds of a trial and of the run.

    `intervals` is the most that all trials of the study train together; the trial running when they are used up goes
    back into the queue. `outage` is how many seconds the database may be away.
    """

    n_trials: int
    intervals: int | None = None
    max_retries: int = 2
    trial_timeout: float | None = None
    timeout: float | None = None
    keep_best: int | None = None
    outage: float = 90.0


@dataclass
class _Running:
    """A trial we hold."""

    trial: optuna.Trial
    trial_id: int
    task: Task
    retries: int
    last_step: int
    submitted: float = field(default_factory=time.monotonic)
    pruned: bool = False
    ended: bool = False
    lost: bool = False
    killed_because: str | None = None


End = Literal["done", "interrupted", "timeout"]


def final_value(outcome: Outcome, reports: Mapping[int, float]) -> float | None:
    """Return the value that a trial is stored with, or None if it has none."""
    if outcome.reason == "diverged":
        return WORST_VALUE
    if outcome.reason == "pruned":
        # Optuna's convention: a pruned trial's value is its last report.
        return reports[max(reports)] if reports else None
    return None if outcome.reason == "failed" else outcome.best_value


def attrs_of(outcome: Outcome) -> dict[str, Any]:
    """Return the user attributes that say how a trial ended."""
    attrs = asdict(outcome)
    if outcome.error is None:
        del attrs["error"]
    return attrs


def trained_intervals(trial: FrozenTrial) -> int:
    """Return how many intervals a trial has trained: those it reported, and the one in which it diverged."""
    return len(trial.intermediate_values) + (trial.user_attrs.get("reason") == "diverged")


class Supervisor:
    """Runs a study until `limits` are reached."""

    def __init__(
        self,
        opened: OpenStudy,
        study: Study,
        executor: Executor,
        observer: Observer,
        limits: Limits,
        *,
        sampler: BaseSampler,
        pruner: BasePruner,
        examples: int,
        grid: Sequence[Params] | None = None,
        device: str = "cpu",
    ) -> None:
        """Run `study`, trained on `examples` examples, as `opened`."""
        self._opened = opened
        self._storage = opened.storage
        self._study = study
        self._executor = executor
        self._observer = observer
        self._limits = limits
        self._sampler = sampler
        self._pruner = pruner
        self._examples = examples
        self._longest = most_intervals(study, examples)
        self._grid = grid
        self._device = device
        self._held: dict[int, _Running] = {}
        self._storage.serve(limits.outage)
        self._heartbeat = Heartbeat(self._storage, opened.study_id)
        self._outbox = Outbox(self._storage, self._heartbeat, limits.outage, observer.message, self._lose)
        self._interrupts = 0
        self._spent = False
        self._finished_here = 0
        self._failures_in_a_row = 0
        self._others = 0
        self._intervals = 0
        self._recount = True
        self._housekept = self._asked = float("-inf")
        self._began = time.monotonic()

    def run(self) -> End:
        """Run trials until enough are finished, Ctrl-C, or the time is over; return which.

        Raises TooManyFailures, CannotContinue or StorageUnavailable when going on is pointless. However it ends, every
        trial is stored as finished or waits in the queue with its resume point.
        """
        with self._signals(), self._heartbeat:
            try:
                return self._loop()
            finally:
                self._wind_down()

    def _loop(self) -> End:
        while True:
            self._outbox.flush()
            if self._interrupts:
                return "interrupted"
            if self._limits.timeout is not None and time.monotonic() - self._began > self._limits.timeout:
                return "timeout"
            self._housekeep()
            self._fill()
            if self._recount:
                self._outbox.attempt(self._count)
            # Another supervisor's trials may yet fail or come back to the queue.
            if self._spent and not self._held and not self._others:
                return "done"
            for event in self._executor.events(TICK_SECONDS):
                self._handle(event)
            self._observer.tick()

    # Handing out trials.

    def _fill(self) -> None:
        if self._spent and time.monotonic() - self._asked > OTHERS_SECONDS:
            # A trial may have failed, or come back from another supervisor.
            self._spent = False
        while self._free_slots() and not self._spent and self._outbox.flush():
            if not self._outbox.attempt(self._start_one):
                return

    def _free_slots(self) -> int:
        return self._executor.slots - sum(not running.ended for running in self._held.values())

    def _used_up(self) -> bool:
        return self._limits.intervals is not None and self._intervals >= self._limits.intervals

    def _start_one(self) -> None:
        if self._limits.intervals is not None:
            trials = self._opened.optuna_study().get_trials(deepcopy=False)
            self._intervals = sum(map(trained_intervals, trials))
            if self._used_up():
                self._spent, self._asked = True, time.monotonic()
                return
        held = {running.trial_id for running in self._held.values()}
        claim = self._storage.claim(self._opened.study_id, self._limits.n_trials, held, self._grid)
        if claim is None:
            self._others = self._storage.others_running(self._opened.study_id)
            self._spent = True
            self._asked = time.monotonic()
            return
        trial_id = claim.trial_id
        study = self._opened.optuna_study(self._sampler, self._pruner)
        study.get_trials(deepcopy=False)
        trial = optuna.Trial(study, trial_id)
        stored = self._storage.get_trial(trial_id)
        space = TrialSpace(trial)
        failure = None
        try:
            length = intervals_of(self._study.trace(space), self._study, self._examples)
            if length != self._longest:
                self._storage.set_trial_system_attr(trial_id, INTERVALS, length)
        except Exception as error:
            if is_outage(error) or isinstance(error, TrialLost):
                raise
            failure = Outcome(reason="failed", error=_explain(error))
        running = _Running(
            trial=trial,
            trial_id=trial_id,
            task=Task(
                number=trial.number,
                params=space.params,
                seed=derive_seed(self._opened.seed, "trial", trial.number),
                folder=self._opened.folder / str(trial.number),
                identity=f"{self._opened.uid}/{trial.number}",
                claim=claim.number,
                device=self._device,
            ),
            retries=stored.user_attrs.get("retries", 0),
            last_step=max(stored.intermediate_values, default=0),
        )
        self._held[trial.number] = running
        self._recount = True
        if failure is not None:
            self._end(running, failure)
            return
        self._executor.submit(running.task)
        self._observer.started(running.task, running.last_step)

    # What comes back.

    def _handle(self, event: Event) -> None:
        running = self._held.get(event.number)
        if isinstance(event, Warned):
            self._observer.message(f"trial {event.number}: {event.message}")
        elif running is None or running.ended:
            return
        elif running.lost:
            if not isinstance(event, Reported):
                self._drop(running)
        elif isinstance(event, Ended) and event.outcome.reason == "lost":
            running.ended = True
            self._lose(running.trial_id)
        elif isinstance(event, Reported):
            self._executor.reply(event.number, self._judge(running, event.report))
            if self._used_up():
                self._executor.stop()
        elif isinstance(event, Ended) and not (running.killed_because and event.outcome.reason == "interrupted"):
            self._end(running, event.outcome)
        else:
            why = event.why if isinstance(event, Died) else "stopped"
            self._revive(running, running.killed_because or why)

    def _judge(self, running: _Running, report: EpochReport) -> Verdict:
        """Store a report, unless it is of before an interruption, and decide whether its trial goes on."""
        self._observer.reported(running.task.number, report)
        if report.interval < running.last_step or (report.interval > running.last_step and self._used_up()):
            return "continue"
        if report.interval > running.last_step:
            running.last_step = report.interval
            self._intervals += 1
            self._outbox.append(lambda: self._store_report(running, report))

        def decide() -> None:
            # Not `Trial.should_prune`: that looks at the reports made through the trial object only.
            stored = self._storage.get_trial(running.trial_id)
            running.pruned = bool(self._pruner.prune(running.trial.study, stored))

        # A worker may die before it hears a verdict, which holds all the same. While the database is away trials go
        # on; the next report is judged again.
        if not running.pruned and self._outbox.flush():
            self._outbox.attempt(decide)
        return "prune" if running.pruned else "continue"

    def _store_report(self, running: _Running, report: EpochReport) -> None:
        step, value = report.interval, report.validation_accuracy
        if not self._storage.report(self._opened.study_id, running.trial_id, step, value):
            self._lose(running.trial_id)

    def _end(self, running: _Running, outcome: Outcome) -> None:
        if outcome.reason == "interrupted":
            running.ended = True
            if outcome.error is not None:
                raise CannotContinue(outcome.error)
            self._give_back(running)
            return
        running.ended = True
        state = _STATES[outcome.reason]
        self._outbox.append(lambda: self._store_end(running, outcome))
        if self._limits.keep_best is not None:
            self._outbox.append(self._remove_weights)
        self._outbox.flush()
        self._stop_if_hopeless(state, outcome)

    def _store_end(self, running: _Running, outcome: Outcome) -> None:
        study = running.trial.study
        frozen = study._storage.get_trial(running.trial_id)
        state, value = _STATES[outcome.reason], final_value(outcome, frozen.intermediate_values)
        if frozen.state == TrialState.RUNNING:
            self._sampler.after_trial(study, frozen, state, None if value is None else [value])
        ours = self._storage.finish(self._opened.study_id, running.trial_id, state, value, attrs_of(outcome))
        if ours:
            remove_resume_points(running.task.folder, failed=state == TrialState.FAIL)
            self._observer.ended(running.task.number, state, outcome)
        else:
            self._observer.released(running.task.number)
        self._held.pop(running.task.number, None)
        self._recount = True

    def _stop_if_hopeless(self, state: TrialState, outcome: Outcome) -> None:
        if state != TrialState.FAIL:
            self._finished_here += 1
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        allowed = FAILURES_IN_A_ROW if self._finished_here else FIRST_FAILURES
        if self._failures_in_a_row >= allowed:
            which = "in a row" if self._finished_here else "of this run, the first ones,"
            raise TooManyFailures(
                f"{self._failures_in_a_row} trials {which} failed, so the run stopped. The last one says:\n"
                f"{(outcome.error or '').rstrip()}"
            )

    def _revive(self, running: _Running, why: str) -> None:
        """Put a trial whose worker died on a fresh one, from its resume point, unless it has died too often."""
        running.retries += 1
        running.killed_because = None
        number, trial_id, retries = running.task.number, running.trial_id, running.retries
        if retries > self._limits.max_retries:
            error = f"{why}; given up after {self._limits.max_retries} retries (--max-retries)"
            self._end(running, Outcome(reason="failed", error=error))
            return
        self._outbox.append(lambda: self._storage.set_attr(self._opened.study_id, trial_id, "retries", retries))
        self._observer.message(
            f"trial {number}: {why}; it goes on from its last interval (retry {retries} of {self._limits.max_retries})"
        )
        running.submitted = time.monotonic()
        self._executor.submit(running.task)

    def _give_back(self, running: _Running) -> None:
        def store() -> None:
            self._storage.give_back(self._opened.study_id, [running.trial_id])
            self._drop(running)

        self._outbox.append(store)
        self._outbox.flush()

    def _drop(self, running: _Running) -> None:
        self._held.pop(running.task.number, None)
        self._observer.released(running.task.number)

    def _remove_weights(self) -> None:
        """Keep the weights of the `keep_best` best trials only.

        Nobody trains a finished trial, and one that is not among the best will never be: that may be an old look.
        """
        trials = self._opened.optuna_study().get_trials(deepcopy=False, states=FINISHED)
        best = sorted(
            (trial for trial in trials if trial.state == TrialState.COMPLETE),
            key=lambda trial: (-(trial.value or 0.0), trial.number),
        )[: self._limits.keep_best]
        kept = {trial.number for trial in best}
        for trial in trials:
            if trial.number not in kept:
                (self._opened.folder / str(trial.number) / BEST).unlink(missing_ok=True)

    # Time.

    def _housekeep(self) -> None:
        now = time.monotonic()
        if self._limits.trial_timeout is not None:
            for running in self._held.values():
                overdue = now - running.submitted > self._limits.trial_timeout
                if overdue and not running.ended and running.killed_because is None:
                    running.killed_because = f"it took longer than {self._limits.trial_timeout:g} s (--trial-timeout)"
                    self._executor.kill(running.task.number)
        if now - self._housekept < self._storage.owner.heartbeat:
            return
        self._housekept = now
        self._outbox.attempt(self._look_after_trials)

    def _look_after_trials(self) -> None:
        """Let go of what is not ours any more, and take over what nobody looks after."""
        owned = self._storage.owned(self._opened.study_id)
        for running in list(self._held.values()):
            if running.trial_id not in owned and not running.ended:
                self._lose(running.trial_id)
        for number in self._storage.take_over(self._opened.study_id):
            self._spent = False
            self._observer.message(f"trial {number}: taken over from a supervisor that died")
        self._recount = True

    def _lose(self, trial_id: int | None) -> None:
        """Stop a trial that another supervisor has taken over."""
        running = next((running for running in self._held.values() if running.trial_id == trial_id), None)
        if running is None or running.lost:
            return
        running.lost = True
        self._observer.message(f"trial {running.task.number}: taken over by another supervisor, stopped here")
        if running.ended:
            self._drop(running)
        else:
            self._executor.kill(running.task.number)

    def _count(self) -> None:
        self._observer.counts(self._storage.counts(self._opened.study_id), self._limits.n_trials)
        self._recount = False

    # The end.

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn the first SIGINT or SIGTERM into an orderly end; the second one leaves at once."""

        def on_signal(number: int, frame: FrameType | None) -> None:
            self._interrupts += 1
            self._executor.stop()
            if self._interrupts > 1:
                raise KeyboardInterrupt

        previous = {}
        try:
            for name in ("SIGINT", "SIGTERM", "SIGHUP"):
                if hasattr(signal, name):
                    previous[name] = signal.signal(getattr(signal, name), on_signal)
        except ValueError:
            pass  # Not the main thread: the caller's handlers hold.
        try:
            yield
        finally:
            for name, handler in previous.items():
                signal.signal(getattr(signal, name), handler)

    def _wind_down(self) -> None:
        """Stop what still runs and put it back into the queue."""
        if self._interrupts > 1:
            return
        self._executor.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while any(not running.ended for running in self._held.values()) and time.monotonic() < deadline:
            for event in self._executor.events(TICK_SECONDS):
                self._wind_down_one(event)
        held = [running.trial_id for running in self._held.values()]
        self._outbox.append(lambda: self._storage.give_back(self._opened.study_id, held))
        self._outbox.append(self._count)
        with contextlib.suppress(StorageUnavailable):
            if not self._outbox.flush():
                # Their owner is then known dead.
                self._observer.message(
                    "the database is away; the next run learns from the trials' files what it missed"
                )
                return
            self._opened.remove_leftovers()

    def _wind_down_one(self, event: Event) -> None:
        running = self._held.get(event.number)
        if running is None or running.ended:
            return
        if isinstance(event, Reported):
            self._executor.reply(event.number, self._judge(running, event.report))
        elif isinstance(event, Ended) and event.outcome.reason not in ("interrupted", "lost"):
            # The run is ending already, whatever this outcome says of it.
            with contextlib.suppress(HpsearchError):
                self._end(running, event.outcome)
        elif not isinstance(event, Warned):
            running.ended = True


def _explain(error: BaseException) -> str:
    if isinstance(error, HpsearchError):
        return str(error)
    return "".join(traceback.format_exception(error))

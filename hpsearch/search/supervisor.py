"""The supervisor: one single-threaded event loop between the database and the executor.

It claims trials, submits them as tasks, stores reports and outcomes, prunes, and retries trials whose workers died.
Its workers do not use the database. Writes go through an outbox in order, so that during an outage of the database
training continues and no report is lost. Only the heartbeat has a separate thread.
"""

import contextlib
import enum
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.trial import TrialState

from hpsearch.datasets import length
from hpsearch.errors import (
    CannotContinue,
    HpsearchError,
    NoneFeasible,
    StorageUnavailable,
    TooManyFailures,
    TrialLost,
)
from hpsearch.executors import Died, Ended, Event, Executor, Outcome, Reported, Task, Verdict, Warned
from hpsearch.executors.trial_files import BEST_WEIGHTS, remove_resume_points
from hpsearch.interrupts import handling
from hpsearch.search.database import is_outage
from hpsearch.search.heartbeat import Heartbeat
from hpsearch.search.observer import Observer
from hpsearch.search.outbox import Outbox
from hpsearch.search.pruners import intervals_of
from hpsearch.search.search import Loaded, Search
from hpsearch.search.storage import FINISHED, Claim
from hpsearch.search.stored_study import StoredStudy
from hpsearch.search.study_view import INTERVALS
from hpsearch.search.trial_record import (
    INFEASIBLE,
    REQUIRES,
    RETRIES,
    attrs_of,
    final_state,
    final_value,
    ranked,
    trained_intervals,
)
from hpsearch.search.trial_space import TrialSpace
from hpsearch.seeding import trial_seed
from hpsearch.space import counted
from hpsearch.training import IntervalReport

TICK_SECONDS = 0.1
OTHERS_SECONDS = 2.0
STOP_SECONDS = 3.0
FIRST_FAILURES = 5
FAILURES_IN_A_ROW = 10
INFEASIBLE_IN_A_ROW = 200

End = Literal["done", "interrupted", "timeout"]


def is_hopeless(failures_in_a_row: int, *, finished: int) -> bool:
    """Whether to stop a run with `finished` finished trials after so many failures in a row."""
    return failures_in_a_row >= (FAILURES_IN_A_ROW if finished else FIRST_FAILURES)


class State(enum.Enum):
    """The state of a trial in this supervisor."""

    TRAINING = enum.auto()
    # It took too long; its worker is killed, and another worker continues the trial.
    OVERDUE = enum.auto()
    # Its outcome has not been stored yet.
    ENDED = enum.auto()
    # Another supervisor has claimed it; its worker is killed.
    LOST = enum.auto()


@dataclass
class _Held:
    """A trial of this supervisor. `pruned` is the verdict on it, which stays valid if its worker dies."""

    trial: optuna.Trial
    trial_id: int
    task: Task
    retries: int
    last_interval: int
    submitted: float = field(default_factory=time.monotonic)
    state: State = State.TRAINING
    pruned: bool = False

    @property
    def number(self) -> int:
        """The number of the trial."""
        return self.task.number


# The writes to the database, which `Supervisor._write` does in order.


@dataclass(frozen=True)
class _Report:
    held: _Held
    interval: int
    value: float


@dataclass(frozen=True)
class _Retries:
    held: _Held
    retries: int


@dataclass(frozen=True)
class _TrialEnd:
    held: _Held
    outcome: Outcome


@dataclass(frozen=True)
class _GiveBack:
    trials: tuple[_Held, ...]


@dataclass(frozen=True)
class _KeepBest:
    """Not a write to the database: removes the weights of all trials but the best `count` stored there."""

    count: int


_Write = _Report | _Retries | _TrialEnd | _GiveBack | _KeepBest


class Supervisor:
    """Runs the stored study `stored` until the limits of `search` are reached."""

    def __init__(
        self, stored: StoredStudy, search: Search, loaded: Loaded, executor: Executor, observer: Observer
    ) -> None:
        self._stored = stored
        self._storage = stored.storage
        self._study = search.study_file.study
        self._executor = executor
        self._observer = observer
        self._limits = limits = search.limits
        self._sampler = search.strategy.make_sampler(self._study, stored.seed)
        self._pruner = search.strategy.make_pruner(loaded.intervals, stored.seed)
        self._examples = length(loaded.data.train)
        self._longest = loaded.intervals
        self._points = search.points
        self._device = search.device
        self._held: dict[int, _Held] = {}
        self._storage.serve(limits.outage)
        self._heartbeat = Heartbeat(self._storage, stored.study_id)
        self._outbox: Outbox[_Write] = Outbox(
            self._storage,
            self._heartbeat,
            limits.outage,
            write=self._write,
            notify=observer.message,
            on_lost=self._lose,
        )
        self._interrupts = 0
        self._none_left = False
        self._finished_here = 0
        self._failures_in_a_row = 0
        self._unmet_in_a_row: Counter[str] = Counter()
        self._others_running = 0
        self._intervals = 0
        self._recount = True
        self._housekept_at = self._asked_at = float("-inf")
        self._began = time.monotonic()

    def run(self) -> End:
        """Run trials until enough are finished, the time is over, or Ctrl-C; return which.

        Raises TooManyFailures, CannotContinue or StorageUnavailable if the run cannot continue, and NoneFeasible if no
        configuration out of many meets the requirements of the recipe. In all cases, every
        trial is stored as finished or is in the queue with its resume point.
        """
        with handling(self._on_interrupt), self._heartbeat:
            try:
                return self._loop()
            finally:
                self._wind_down()

    def _on_interrupt(self) -> None:
        self._interrupts += 1
        self._executor.stop()

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
            # Trials of other supervisors may still fail or go back into the queue.
            if self._none_left and not self._held and not self._others_running:
                return "done"
            drawing = self._unmet_in_a_row and self._free_slots() and not self._none_left
            for event in self._executor.events(0.0 if drawing else TICK_SECONDS):
                self._handle(event)
            self._observer.tick()

    # Starting trials.

    def _fill(self) -> None:
        if self._none_left and time.monotonic() - self._asked_at > OTHERS_SECONDS:
            # Meanwhile a trial of another supervisor may have failed or gone back into the queue.
            self._none_left = False
        while not self._interrupts and self._free_slots() and not self._none_left and self._outbox.flush():
            # Between configurations that do not meet a requirement, workers are listened to.
            if not self._outbox.attempt(self._start_one) or self._unmet_in_a_row:
                return

    def _free_slots(self) -> int:
        return self._executor.slots - sum(held.state != State.ENDED for held in self._held.values())

    def _used_up(self) -> bool:
        return self._limits.intervals is not None and self._intervals >= self._limits.intervals

    def _start_one(self) -> None:
        """Claim a trial and submit it to a worker, or record that there is none."""
        if self._limits.intervals is not None:
            trials = self._stored.optuna_study().get_trials(deepcopy=False)
            self._intervals = sum(map(trained_intervals, trials))
            if self._used_up():
                self._none_left, self._asked_at = True, time.monotonic()
                return
        ours = {held.trial_id for held in self._held.values()}
        claim = self._storage.claim(self._stored.study_id, self._limits.n_trials, ours, self._points)
        if claim is None:
            self._others_running = self._storage.others_running(self._stored.study_id)
            self._none_left, self._asked_at = True, time.monotonic()
            return
        held, failure = self._draw(claim)
        self._held[held.number] = held
        self._recount = True
        if failure is not None:
            self._end(held, failure)
            return
        self._unmet_in_a_row.clear()
        self._executor.submit(held.task)
        self._observer.started(held.task, held.last_interval)

    def _draw(self, claim: Claim) -> tuple[_Held, Outcome | None]:
        """Draw the params of a claimed trial; if its recipe fails or turns them away, also return the outcome."""
        study = self._stored.optuna_study(self._sampler, self._pruner)
        study.get_trials(deepcopy=False)
        trial = optuna.Trial(study, claim.trial_id)
        before = self._storage.get_trial(claim.trial_id)
        space = TrialSpace(trial)
        failure = None
        try:
            length = intervals_of(self._study.trace(space), self._study, self._examples)
            if length != self._longest:
                self._storage.set_trial_system_attr(claim.trial_id, INTERVALS, length)
        except Exception as error:
            if is_outage(error) or isinstance(error, TrialLost):
                raise
            failure = Outcome(reason="failed", error=_explain(error))
        if space.unmet is not None:
            failure = Outcome(reason="infeasible", error=f"{REQUIRES}{space.unmet}")
        task = Task(
            number=trial.number,
            params=space.params,
            seed=trial_seed(self._stored.seed, trial.number),
            folder=self._stored.trial_folder(trial.number),
            identity=f"{self._stored.uid}/{trial.number}",
            claim=claim.number,
            device=self._device,
        )
        held = _Held(
            trial=trial,
            trial_id=claim.trial_id,
            task=task,
            retries=before.user_attrs.get(RETRIES, 0),
            last_interval=max(before.intermediate_values, default=0),
        )
        return held, failure

    # Events of the executor.

    def _handle(self, event: Event) -> None:
        held = self._held.get(event.number)
        if isinstance(event, Warned):
            self._observer.message(f"trial {event.number}: {event.message}")
        elif held is None or held.state == State.ENDED:
            return
        elif held.state == State.LOST:
            if not isinstance(event, Reported):
                self._drop(held)
        elif isinstance(event, Reported):
            self._executor.reply(event.number, self._judge(held, event.report))
            if self._used_up():
                self._executor.stop()
        elif isinstance(event, Died):
            self._revive(held, event.why)
        elif event.outcome.reason == "lost":
            held.state = State.ENDED
            self._lose(held.trial_id)
        elif event.outcome.reason == "interrupted" and held.state == State.OVERDUE:
            self._revive(held, "stopped")
        else:
            self._end(held, event.outcome)

    def _judge(self, held: _Held, report: IntervalReport) -> Verdict:
        """Store a report, unless it was stored before an interruption, and return the verdict on its trial."""
        self._observer.reported(held.number, report)
        if report.interval < held.last_interval or (report.interval > held.last_interval and self._used_up()):
            return "continue"
        if report.interval > held.last_interval:
            held.last_interval = report.interval
            self._intervals += 1
            self._outbox.append(_Report(held, report.interval, report.value))

        def decide() -> None:
            # `Trial.should_prune` would use only the reports made through the trial object.
            held.pruned = bool(self._pruner.prune(held.trial.study, self._storage.get_trial(held.trial_id)))

        # A verdict stays valid if the worker dies before it receives it. During an outage of the database, trials
        # continue without a decision until the next report.
        if not held.pruned and self._outbox.flush():
            self._outbox.attempt(decide)
        return "prune" if held.pruned else "continue"

    def _end(self, held: _Held, outcome: Outcome) -> None:
        held.state = State.ENDED
        if outcome.reason == "interrupted":
            if outcome.error is not None:
                raise CannotContinue(outcome.error)
            self._outbox.append(_GiveBack((held,)))
            self._outbox.flush()
            return
        self._outbox.append(_TrialEnd(held, outcome))
        if self._limits.keep_best is not None:
            self._outbox.append(_KeepBest(self._limits.keep_best))
        self._outbox.flush()
        self._count_failures(outcome)

    def _count_failures(self, outcome: Outcome) -> None:
        """Count failures in a row, and infeasible trials in a row.

        Raises TooManyFailures or NoneFeasible if there are too many after this outcome.
        """
        if outcome.reason == INFEASIBLE:
            self._unmet_in_a_row[str(outcome.error).removeprefix(REQUIRES)] += 1
            if (count := self._unmet_in_a_row.total()) >= INFEASIBLE_IN_A_ROW:
                raise NoneFeasible(
                    f"none of {count} configurations in a row meets the requirements of the recipe "
                    f"({counted(self._unmet_in_a_row)}), so the run stopped: widen the requirements or narrow the "
                    f"space; hpsearch check shows how many of its configurations meet them"
                )
            return
        if final_state(outcome) != TrialState.FAIL:
            self._finished_here += 1
            self._failures_in_a_row = 0
            return
        self._failures_in_a_row += 1
        if is_hopeless(self._failures_in_a_row, finished=self._finished_here):
            count = self._failures_in_a_row
            which = f"{count} trials in a row" if self._finished_here else f"the first {count} trials of this run"
            raise TooManyFailures(
                f"{which} failed, so the run stopped. The last error was:\n{(outcome.error or '').rstrip()}"
            )

    def _revive(self, held: _Held, why: str) -> None:
        """Continue a trial whose worker died on a new one, or end it as failed after too many retries."""
        if held.state == State.OVERDUE:
            why = f"it took longer than {self._limits.trial_timeout:g} s (--trial-timeout)"
        held.retries += 1
        if held.retries > self._limits.max_retries:
            most = self._limits.max_retries
            error = f"{why}; given up after {most} {'retry' if most == 1 else 'retries'} (--max-retries)"
            self._end(held, Outcome(reason="failed", error=error))
            return
        self._outbox.append(_Retries(held, held.retries))
        self._observer.message(
            f"trial {held.number}: {why}; it continues from its last {self._study.unit} "
            f"(retry {held.retries} of {self._limits.max_retries})"
        )
        held.state, held.submitted = State.TRAINING, time.monotonic()
        self._executor.submit(held.task)

    def _drop(self, held: _Held) -> None:
        self._held.pop(held.number, None)
        self._observer.released(held.number)

    # Writes.

    def _write(self, write: _Write) -> None:
        """Do a write. If the database becomes unavailable meanwhile, the whole write is repeated later."""
        study_id = self._stored.study_id
        match write:
            case _Report(held, interval, value):
                if not self._storage.report(study_id, held.trial_id, interval, value):
                    self._lose(held.trial_id)
            case _Retries(held, retries):
                self._storage.set_attr(study_id, held.trial_id, RETRIES, retries)
            case _TrialEnd(held, outcome):
                self._write_end(held, outcome)
            case _GiveBack(trials):
                self._storage.give_back(study_id, [held.trial_id for held in trials])
                for held in trials:
                    self._drop(held)
            case _KeepBest(count):
                self._remove_weights(count)

    def _write_end(self, held: _Held, outcome: Outcome) -> None:
        study = held.trial.study
        frozen = study._storage.get_trial(held.trial_id)
        worst = self._study.measure.worst
        state, value = final_state(outcome), final_value(outcome, frozen.intermediate_values, worst)
        if frozen.state == TrialState.RUNNING:
            self._sampler.after_trial(study, frozen, state, None if value is None else [value])
        ours = self._storage.finish(self._stored.study_id, held.trial_id, state, value, attrs_of(outcome))
        if ours:
            remove_resume_points(held.task.folder, failed=state == TrialState.FAIL)
            self._observer.ended(held.number, state, outcome)
        else:
            self._observer.released(held.number)
        self._held.pop(held.number, None)
        self._recount = True

    def _remove_weights(self, count: int) -> None:
        """Remove the weights of all finished trials but the best `count`.

        The list of trials may be outdated: finished trials do not change, and the rank of a trial can only fall.
        """
        trials = self._stored.optuna_study().get_trials(deepcopy=False, states=FINISHED)
        kept = {trial.number for trial in ranked(trials, self._study.measure)[:count]}
        for trial in trials:
            if trial.number not in kept:
                (self._stored.trial_folder(trial.number) / BEST_WEIGHTS).unlink(missing_ok=True)

    # Periodic work.

    def _housekeep(self) -> None:
        now = time.monotonic()
        if self._limits.trial_timeout is not None:
            for held in self._held.values():
                if held.state == State.TRAINING and now - held.submitted > self._limits.trial_timeout:
                    held.state = State.OVERDUE
                    self._executor.kill(held.number)
        if now - self._housekept_at < self._storage.owner.heartbeat:
            return
        self._housekept_at = now
        self._outbox.attempt(self._look_after_trials)

    def _look_after_trials(self) -> None:
        """Stop trials that are not ours any more, and take over those of dead supervisors."""
        owned = self._storage.owned(self._stored.study_id)
        for held in list(self._held.values()):
            if held.trial_id not in owned and held.state != State.ENDED:
                self._lose(held.trial_id)
        for number in self._storage.take_over(self._stored.study_id):
            self._none_left = False
            self._observer.message(f"trial {number}: taken over from a supervisor that died")
        self._recount = True

    def _lose(self, trial_id: int | None) -> None:
        """Stop a trial that another supervisor has taken over."""
        held = next((held for held in self._held.values() if held.trial_id == trial_id), None)
        if held is None or held.state == State.LOST:
            return
        self._observer.message(f"trial {held.number}: taken over by another supervisor, stopped here")
        if held.state == State.ENDED:
            self._drop(held)
        else:
            held.state = State.LOST
            self._executor.kill(held.number)

    def _count(self) -> None:
        study_id = self._stored.study_id
        counts, infeasible = self._storage.counts(study_id), self._storage.infeasible(study_id)
        self._observer.counts(counts, self._limits.n_trials, infeasible)
        self._recount = False

    # Shutdown.

    def _wind_down(self) -> None:
        """Stop the running trials and put them back into the queue."""
        if self._interrupts > 1:
            return
        self._executor.stop()
        deadline = time.monotonic() + STOP_SECONDS
        while any(held.state != State.ENDED for held in self._held.values()) and time.monotonic() < deadline:
            for event in self._executor.events(TICK_SECONDS):
                self._wind_down_one(event)
        self._outbox.append(_GiveBack(tuple(self._held.values())))
        with contextlib.suppress(StorageUnavailable):
            if not (self._outbox.flush() and self._outbox.attempt(self._count)):
                # The next run takes the trials over: their owner is then known to be dead.
                self._observer.message(
                    "the database is unavailable; the next run restores from the trials' files what it misses"
                )
                return
            self._stored.remove_leftovers()

    def _wind_down_one(self, event: Event) -> None:
        held = self._held.get(event.number)
        if held is None or held.state == State.ENDED:
            return
        if isinstance(event, Reported):
            self._executor.reply(event.number, self._judge(held, event.report))
        elif isinstance(event, Ended) and event.outcome.reason not in ("interrupted", "lost"):
            # The run is already ending, whether or not this outcome would end it.
            with contextlib.suppress(HpsearchError):
                self._end(held, event.outcome)
        elif not isinstance(event, Warned):
            held.state = State.ENDED


def _explain(error: BaseException) -> str:
    if isinstance(error, HpsearchError):
        return str(error)
    return "".join(traceback.format_exception(error))

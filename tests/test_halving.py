"""Successive halving and Hyperband decide as Optuna's do, and decide the same when asked again."""

import random
import warnings
from collections.abc import Callable

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpsearch.search.halving import Hyperband, SuccessiveHalving, brackets, rungs_of
from hpsearch.search.pruners import make_pruner, parse_pruner
from hpsearch.search.study_view import INTERVALS

LONGEST = 27
Judge = Callable[[optuna.trial.Trial], bool]


def decisions(seed: int, judge: Judge, at_once: int, *, direction: str = "maximize") -> list[tuple[int, int]]:
    """Return number and last step of the trials of a study of random curves, `at_once` of them trained in turns."""
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=seed))
    draw = random.Random(seed)
    running: list[tuple[optuna.trial.Trial, float, int]] = []
    ended = []
    for _ in range(60):
        while len(running) < at_once:
            running.append((study.ask(), draw.random(), 0))
        index = draw.randrange(at_once)
        trial, top, step = running.pop(index)
        # A turn is a few intervals.
        for _ in range(draw.randint(1, 9)):
            step += 1
            # Few digits, so that values are often equal.
            trial.report(round(top * (1 - 0.8**step) + draw.gauss(0, 0.05), 2), step)
            if judge(trial) or step == LONGEST:
                study.tell(trial, state=TrialState.PRUNED)
                ended.append((trial.number, step))
                break
        else:
            running.insert(index, (trial, top, step))
    return ended


def judged_by(pruner: BasePruner) -> Judge:
    return lambda trial: pruner.prune(trial.study, trial.study._storage.get_trial(trial._trial_id))


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize(("first", "factor", "bootstrap"), [(1, 3, 0), (2, 2, 0), (1, 4, 3), (3, 3, 1)])
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_successive_halving_decides_as_optunas(
    first: int, factor: int, bootstrap: int, at_once: int, direction: str
) -> None:
    for seed in range(2):
        theirs = SuccessiveHalvingPruner(first, factor, bootstrap_count=bootstrap)
        expected = decisions(seed, judged_by(theirs), at_once, direction=direction)
        ours = SuccessiveHalving(first, factor, LONGEST, bootstrap)
        assert decisions(seed, judged_by(ours), at_once, direction=direction) == expected
        assert len({step for _, step in expected}) > 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize(("first", "most", "factor"), [(1, 27, 3), (2, 27, 3), (1, 16, 4), (2, 9, 2)])
def test_hyperband_decides_as_optunas_with_the_same_brackets(first: int, most: int, factor: int, at_once: int) -> None:
    ours = Hyperband(first, most, factor, LONGEST, seed=3)

    class Theirs(HyperbandPruner):
        def _get_bracket_id(self, study: optuna.Study, trial: FrozenTrial) -> int:
            return ours.bracket_of(trial.number)

    for seed in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = Theirs(first, most, factor)
        assert decisions(seed, judged_by(ours), at_once) == decisions(seed, judged_by(theirs), at_once)


@pytest.mark.parametrize("pruner", ["hyperband:reduction_factor=2", "asha:reduction_factor=2"])
def test_a_decision_made_again_is_the_same(pruner: str) -> None:
    first, again = (make_pruner(parse_pruner(pruner), LONGEST) for _ in range(2))

    def twice(trial: optuna.trial.Trial) -> bool:
        # As after a worker's death, or the supervisor's: the first verdict was heard by nobody.
        lost = judged_by(first)(trial)
        assert judged_by(again)(trial) == judged_by(first)(trial) == lost
        return lost

    assert decisions(0, twice, 4) == decisions(0, judged_by(first), 4)


# Not (1, 243, 3), where Optuna's logarithm is a rounding error short of 5, and a bracket missing.
@pytest.mark.parametrize(("low", "high", "factor"), [(1, 20, 3), (1, 27, 3), (2, 81, 3), (1, 16, 4)])
def test_the_brackets_are_optunas(low: int, high: int, factor: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = HyperbandPruner(low, high, factor)
    theirs._try_initialization(optuna.create_study())
    starts = [one._min_resource * factor**one._min_early_stopping_rate for one in theirs._pruners]  # type: ignore[operator]
    assert [rungs[0] for rungs in brackets(low, high, factor)] == starts
    ours = Hyperband(low, high, factor, high)
    assert ours._ends[-1] == theirs._total_trial_allocation_budget


def test_the_last_interval_is_no_rung() -> None:
    assert rungs_of(1, 3, 27) == [1, 3, 9]
    assert rungs_of(2, 2, 20) == [2, 4, 8, 16]
    assert rungs_of(5, 2, 5) == []


def test_trials_have_their_shares_of_the_brackets_by_the_seed_alone() -> None:
    def drawn(seed: int) -> list[int]:
        pruner = make_pruner(parse_pruner("hyperband"), 20, seed)
        assert isinstance(pruner, Hyperband)
        return [pruner.bracket_of(number) for number in range(3000)]

    found = drawn(0)
    assert found == drawn(0)
    assert found != drawn(1)
    # The plan says 53, 29 and 18 %; the bound is four standard errors.
    shares = [found.count(bracket) / 3000 for bracket in range(3)]
    assert shares == pytest.approx([9 / 17, 5 / 17, 3 / 17], abs=0.037)


def trial_of(values: list[float], length: int | None, state: TrialState = TrialState.COMPLETE) -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.5,
        intermediate_values=dict(enumerate(values, start=1)),
        system_attrs={} if length is None else {INTERVALS: length},
    )


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(direction="maximize")


@pytest.mark.parametrize(
    "pruner", ["median:n_startup_trials=1", "asha:reduction_factor=2", "hyperband:reduction_factor=2"]
)
def test_trials_of_different_length_are_compared_at_equal_shares(study: optuna.Study, pruner: str) -> None:
    """Under a step size that falls over a trial's own epochs: after 2 of 4 it is where a long one is after 4 of 8."""
    # Hyperband's trials here are in one bracket.
    options = pruner if not pruner.startswith("hyperband") else f"{pruner},max_resource=1"
    made = make_pruner(parse_pruner(options), 8)
    long = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    short = [0.25, 0.45, 0.65, 0.85]
    for _ in range(3):
        study.add_trial(trial_of(long, None))
    judged = []
    for upto in range(1, 5):
        trial = trial_of(short[:upto], 4, TrialState.COMPLETE)
        trial.number = 3
        judged.append(made.prune(study, trial))
    # At no share is it worse than the long ones; at equal intervals, too, it would have gone on.
    assert judged == [False] * 4
    # The other way round: at equal intervals each of these is far behind the short ones, at equal shares before them.
    study = optuna.create_study(direction="maximize")
    for _ in range(3):
        study.add_trial(trial_of(short, 4))
    better = [value + 0.1 for value in long]
    for upto in range(1, 8):
        trial = trial_of(better[:upto], None)
        trial.number = 3
        assert not made.prune(study, trial), upto
    worse = [value - 0.1 for value in long]
    stopped = []
    for upto in range(1, 8):
        trial = trial_of(worse[:upto], None)
        trial.number = 3
        stopped.append(made.prune(study, trial))
    assert any(stopped)


def test_short_and_long_trials_are_stopped_alike() -> None:
    """Curves that depend on the share of the schedule alone: the poor are pruned, whatever their length."""
    made = make_pruner(parse_pruner("median"), 15)
    draw = random.Random(0)
    study = optuna.create_study(direction="maximize")
    pruned: dict[int, list[bool]] = {5: [], 10: [], 15: []}
    for number in range(300):
        length, top = draw.choice([5, 10, 15]), draw.random()
        trial = trial_of([], length, TrialState.RUNNING)
        trial.number, trial.value = number, None
        for step in range(1, length + 1):
            trial.intermediate_values[step] = top * step / length
            if step < length and made.prune(study, trial):
                break
        done = step == length
        pruned[length].append(not done)
        study.add_trial(
            trial_of(
                list(trial.intermediate_values.values()), length, TrialState.COMPLETE if done else TrialState.PRUNED
            )
        )
    shares = {length: sum(found) / len(found) for length, found in pruned.items()}
    assert max(shares.values()) - min(shares.values()) < 0.15, shares

"""The results of a comparison of strategies: tables, best-so-far curves, and the conclusions they support.

Everything is computed from two frames: `epochs_frame`, one row per interval in the order of training, and
`repeats_frame`, one row per strategy and repeat.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from optuna.trial import TrialState
from scipy.stats import t as student_t

from hpsearch.measure import ACCURACY, Measure
from hpsearch.results import markdown
from hpsearch.results.figures import make_figure, style
from hpsearch.search.comparison import Pair
from hpsearch.search.stored_study import StoredStudy
from hpsearch.search.study_attrs import WALL_SECONDS
from hpsearch.search.trial_record import trained_intervals
from hpsearch.text import plural

# "Within 0.5 % of the best": at least this fraction of it.
NEAR = 0.995
# The level of the test against random search.
SIGNIFICANT = 0.05
KEYS = ["strategy", "repeat"]


def epochs_frame(
    stored: Mapping[Pair, StoredStudy], epochs_per_interval: int = 1, measure: Measure = ACCURACY
) -> pd.DataFrame:
    """Return one row per interval: strategy, repeat, epochs trained so far, trial, value, best value so far.

    A pair trains one trial at a time and resumes an interrupted one first, so the order is that of the trials' numbers.
    The interval in which a trial diverged has no value.
    """
    rows = [
        (pair.strategy, pair.repeat, trial.number, interval, trial.intermediate_values.get(interval))
        for pair, study in stored.items()
        for trial in study.optuna_study().get_trials(deepcopy=False)
        for interval in range(1, trained_intervals(trial) + 1)
    ]
    frame = pd.DataFrame(rows, columns=[*KEYS, "trial", "interval", "value"])
    groups = frame.groupby(KEYS, sort=False)
    frame.insert(2, "epochs", (groups.cumcount() + 1) * epochs_per_interval)
    frame["value"] = frame["value"].astype(float)
    frame["best"] = groups["value"].cummax() if measure.maximize else groups["value"].cummin()
    frame["best"] = frame.groupby(KEYS, sort=False)["best"].ffill()
    return frame


def repeats_frame(
    stored: Mapping[Pair, StoredStudy], epochs: pd.DataFrame, budget: int, measure: Measure = ACCURACY
) -> pd.DataFrame:
    """Return one row per strategy and repeat: trials by state, epochs, seconds, best value, area, speed and rank.

    `best_complete` is the best value of the complete trials only, `area` the mean over the budget's epochs of the best
    value so far, `epochs_to_near` the epochs until the best so far came within 0.5 % of the best of all (missing if
    never), `rank` the rank by best value among the strategies of the same repeat, ties averaged.
    """
    rows = []
    for pair, study in stored.items():
        counts = study.storage.counts(study.study_id)
        complete = study.best_trial()
        rows.append(
            {
                "strategy": pair.strategy,
                "repeat": pair.repeat,
                "seed": pair.seed,
                "study": pair.name,
                "complete": counts.get(TrialState.COMPLETE, 0),
                "pruned": counts.get(TrialState.PRUNED, 0),
                "failed": counts.get(TrialState.FAIL, 0) - study.storage.infeasible(study.study_id),
                "best_complete": float("nan") if complete is None else complete.value,
                "wall_seconds": study.user_attrs().get(WALL_SECONDS, float("nan")),
            }
        )
    curves = best_so_far(epochs, budget)
    best = epochs.groupby(KEYS)["value"].max() if measure.maximize else epochs.groupby(KEYS)["value"].min()
    near = epochs[near_best(epochs["best"], measure)]
    measured = pd.DataFrame(
        {
            "epochs": epochs.groupby(KEYS)["epochs"].max(),
            "best": best,
            "area": curves.mean(),
            "epochs_to_near": near.groupby(KEYS)["epochs"].min(),
        }
    )
    frame = pd.DataFrame(rows).merge(measured, left_on=KEYS, right_index=True, how="left")
    frame["rank"] = frame.groupby("repeat")["best"].rank(ascending=not measure.maximize, method="average")
    return frame


def near_best(best: "pd.Series[float]", measure: Measure) -> "pd.Series[bool]":
    """Return where the best value so far is within 0.5 % of the best of all."""
    scores = measure.sign * best
    top = float(scores.max())
    # The factor is exact for positive values, in which differences of accuracies are usual.
    return scores >= (NEAR * top if top > 0 else top - (1 - NEAR) * abs(top))


def best_so_far(epochs: pd.DataFrame, budget: int) -> pd.DataFrame:
    """Return the best value after each epoch (rows) of each strategy and repeat (columns).

    A grid that is exhausted before the budget keeps its best from there on.
    """
    wide = epochs.pivot_table(index="epochs", columns=KEYS, values="best", sort=False)
    step = int(wide.index.min())
    return wide.reindex(range(step, budget + 1, step)).ffill()


def improvements(epochs: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `epochs` in which the best value so far improved, enough to draw the curves."""
    return epochs[epochs["best"].notna() & (epochs["best"] != epochs.groupby(KEYS)["best"].shift())]


def strategies_frame(repeats: pd.DataFrame, measure: Measure = ACCURACY) -> pd.DataFrame:
    """Return one row per strategy, the best mean first: means over the repeats, and their spread.

    `_sd` is a sample standard deviation, `_se` a standard error of the mean (sd / √repeats); `near_median` is over all
    repeats, infinite if half of them or more never came that near.
    """
    groups = repeats.groupby("strategy", sort=False)
    frame = groups.agg(
        repeats=("repeat", "count"),
        complete=("complete", "mean"),
        pruned=("pruned", "mean"),
        failed=("failed", "mean"),
        epochs=("epochs", "mean"),
        wall_seconds=("wall_seconds", "mean"),
        best_mean=("best", "mean"),
        best_sd=("best", "std"),
        best_se=("best", "sem"),
        best_complete_mean=("best_complete", "mean"),
        area_mean=("area", "mean"),
        area_sd=("area", "std"),
        near_reached=("epochs_to_near", "count"),
        near_median=("epochs_to_near", lambda epochs: epochs.fillna(float("inf")).median()),
        rank_mean=("rank", "mean"),
        rank_se=("rank", "sem"),
    )
    order = ["best_mean", "area_mean"]
    return frame.sort_values(order, ascending=not measure.maximize, kind="stable").reset_index()


def within_one_se(repeats: pd.DataFrame, strategies: pd.DataFrame, measure: Measure = ACCURACY) -> list[str]:
    """Return the strategies that the best does not beat by more than one standard error, the best first.

    The standard error is that of the difference, paired by seed: the strategies saw the same seeds.
    """
    best = strategies["strategy"].iloc[0]
    paired = against(repeats, best, measure)
    # Rounding errors must not exclude a strategy that is exactly one standard error behind.
    rounding = 1e-12 * max(1.0, float(repeats["best"].abs().max()))
    near = -measure.sign * paired["difference"] <= paired["se"].fillna(0.0) + rounding
    return [best, *(name for name in strategies["strategy"].iloc[1:] if near[name])]


def against(repeats: pd.DataFrame, reference: str, measure: Measure = ACCURACY) -> pd.DataFrame:
    """Return the difference in best value of every other strategy to the reference, paired by repeat.

    `difference` is the mean, `se` its standard error, `p` that of a one-sided paired t-test for being better (1 if the
    difference is the same in all repeats).
    """
    wide = repeats.pivot(index="repeat", columns="strategy", values="best")
    differences = wide.drop(columns=reference).sub(wide[reference], axis=0)
    mean, se = differences.mean(), differences.sem()
    p = pd.Series(student_t.sf(measure.sign * mean / se.where(se > 0), len(differences) - 1), index=mean.index).fillna(
        1.0
    )
    return pd.DataFrame({"difference": mean, "se": se, "p": p})


def conclusion(
    repeats: pd.DataFrame,
    strategies: pd.DataFrame,
    *,
    budget: int,
    default: str,
    examples: int,
    measure: Measure = ACCURACY,
) -> str:
    """Return a paragraph on what the comparison's numbers show and what they do not.

    `default` is the study's own strategy, `examples` the number of validation examples.
    """
    best, count = strategies.iloc[0], int(strategies["repeats"].max())
    near, rest = within_one_se(repeats, strategies, measure), list(strategies["strategy"])
    rest = [name for name in rest if name not in near]
    spread = markdown.measured(best["best_mean"], best["best_sd"], measure)
    ended = [f"{row['strategy']} after {row['epochs']:.0f}" for row in _records(strategies) if row["epochs"] < budget]
    early = f", or fewer where the grid had no more points ({', '.join(ended)})" if ended else ""
    text = [
        f"{_strategies(len(strategies))} trained {budget:,} epochs each under {plural(count, 'seed')}{early}.",
        f"The {measure.best_word} mean best {measure.label} is {best['strategy']}'s, {spread}.",
    ]
    if count > 1:
        beyond = "below" if measure.maximize else "above"
        others = f"{', '.join(near[1:])} {'is' if len(near) == 2 else 'are'}" if near[1:] else "No other is"
        text.append(
            f"{others} within one standard error of it (of the difference, paired by seed)"
            + (f"; further {beyond}: {_behind(repeats, best['strategy'], rest, measure)}." if rest else ".")
        )
        text.append(_default_sentence(default, near, rest))
    else:
        text.append("One seed does not show the spread: compare under more seeds before choosing by these numbers.")
    if "random" in list(strategies["strategy"]) and len(strategies) > 1 and count > 1:
        text.append(_against_random(repeats, measure))
    one = f"One of the {examples:,} validation examples is {1 / examples:.4f}. " if measure == ACCURACY else ""
    values = "accuracies" if measure == ACCURACY else "values"
    text.append(
        f"{one}A search's best is the {measure.best_word} of many noisy {values}, so all of these are optimistic; the "
        f"test {measure.name}, from `hpsearch retrain`, is not."
    )
    return " ".join(text)


def _against_random(repeats: pd.DataFrame, measure: Measure) -> str:
    """Return the comparison with random search: what is better by a paired t-test, corrected for their number."""
    paired = against(repeats, "random", measure)
    figures = ", ".join(f"{name} {_difference(row, measure)}" for name, row in paired.iterrows())
    better = [str(name) for name in paired.index[paired["p"] * len(paired) < SIGNIFICANT]]
    tests = f"one-sided paired t-test at {SIGNIFICANT:.0%}, Bonferroni-corrected for {len(paired)}"
    if better:
        verdict = f"better than random search {_are(better)} ({tests})"
    else:
        verdict = (
            f"none differs significantly from random search with so few epochs and seeds ({tests}), which does not "
            f"show that they are equal"
        )
    return f"Against random search, paired by seed: {figures} (standard errors); {verdict}."


def _difference(row: "pd.Series[float]", measure: Measure) -> str:
    """Return a row of `against` as "+0.0012 ± 0.0034"."""
    if measure.high > 1:
        return f"{row['difference']:+.4g} ± {row['se']:.2g}"
    # Adding zero turns the negative zero that rounding may return into a positive one.
    return f"{round(row['difference'], 4) + 0.0:+.4f} ± {row['se']:.4f}"


def _strategies(number: int) -> str:
    return "1 strategy" if number == 1 else f"{number} strategies"


def _records(frame: pd.DataFrame) -> list[dict[Hashable, Any]]:
    return frame.to_dict("records")


def of_complete(strategies: pd.DataFrame, measure: Measure = ACCURACY) -> str:
    """Return a sentence on how much worse the best complete trials are, which are what a search returns."""
    named = strategies.set_index("strategy")
    above = measure.sign * (named["best_mean"] - named["best_complete_mean"])
    if not above.max() > 0:
        return "the best trial of every strategy and seed was a complete one."
    worse = "lower" if measure.maximize else "higher"
    return (
        f"over complete trials only, the mean is {worse} by at most {measure.format(above.max())} ({above.idxmax()})."
    )


def _default_sentence(default: str, near: list[str], rest: list[str]) -> str:
    if default not in near + rest:
        return f"The study's default, {default}, was not compared."
    if default == near[0]:
        return f"The best, {default}, is the study's default."
    return f"The study's default, {default}, is {'within' if default in near else 'not within'} one standard error."


def _behind(repeats: pd.DataFrame, best: str, names: list[str], measure: Measure) -> str:
    paired = against(repeats, best, measure).loc[names]
    return ", ".join(f"{name} ({_difference(row, measure)})" for name, row in paired.iterrows())


def _are(names: list[str]) -> str:
    return f"are {', '.join(names)}" if len(names) > 1 else f"is {names[0]}"


def page_table(strategies: pd.DataFrame, measure: Measure = ACCURACY) -> pd.DataFrame:
    """Return the strategies' frame as texts, for a page."""
    rows = []
    for row in _records(strategies):
        reached, count = int(row["near_reached"]), int(row["repeats"])
        median = f"{row['near_median']:.0f}" if row["near_median"] < float("inf") else "-"
        rows.append(
            {
                "strategy": row["strategy"],
                "rank": markdown.mean_sd(row["rank_mean"], row["rank_se"], 1),
                f"best {measure.label}": markdown.measured(row["best_mean"], row["best_sd"], measure),
                "area under curve": markdown.measured(row["area_mean"], row["area_sd"], measure),
                "epochs to 0.5 %": f"{median} ({reached}/{count})",
                "complete": f"{row['complete']:.1f}",
                "pruned": f"{row['pruned']:.1f}",
                "failed": f"{row['failed']:.1f}",
                "epochs": f"{row['epochs']:.0f}",
                "wall s": f"{row['wall_seconds']:.0f}",
            }
        )
    return pd.DataFrame(rows)


def short_table(strategies: pd.DataFrame, measure: Measure = ACCURACY) -> pd.DataFrame:
    """Return the main columns of `page_table`, with short names, for a terminal."""
    columns = {"strategy": "strategy", "rank": "rank", f"best {measure.label}": f"best {measure.name}"}
    columns |= {"epochs to 0.5 %": "to 0.5 %", "complete": "complete", "pruned": "pruned"}
    return page_table(strategies, measure)[list(columns)].rename(columns=columns)


def plot_curves(
    epochs: pd.DataFrame, strategies: pd.DataFrame, budget: int, title: str, measure: Measure = ACCURACY
) -> Figure:
    """Return the best value so far against epochs, mean ± standard error over the repeats: in full and enlarged."""
    figure, axes = make_figure(1, 2, height=4.4)
    curves = best_so_far(epochs, budget)
    for index, strategy in enumerate(strategies["strategy"]):
        mean = curves[strategy].mean(axis=1)
        error = curves[strategy].sem(axis=1).fillna(0.0)
        for axis in axes[0]:
            axis.plot(mean.index, mean, drawstyle="steps-post", label=strategy, linewidth=1.6, **style(index))
            axis.fill_between(
                mean.index,
                mean - error,
                mean + error,
                step="post",
                alpha=0.15,
                color=style(index)["color"],
                linewidth=0,
            )
    # From the worst mean to the best value of all.
    worst = float((measure.sign * strategies["best_mean"]).min())
    best = float((measure.sign * epochs["value"]).max())
    margin = max(best - worst, 0.002 if measure.is_share else 0.002 * abs(best))
    ends = sorted((measure.sign * (worst - 1.5 * margin), measure.sign * (best + 0.3 * margin)))
    axes[0, 0].set(title="Full range")
    if measure.is_share:
        axes[0, 0].set(ylim=(0, 1.02))
    axes[0, 1].set(title="Enlarged: the last few per cent", ylim=tuple(ends))
    for axis in axes[0]:
        axis.set(xlabel="Epochs trained, all trials together", ylabel=f"Best {measure.label} so far", xlim=(0, budget))
        axis.grid(alpha=0.25)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)), frameon=False)
    figure.suptitle(title)
    return figure

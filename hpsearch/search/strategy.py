"""A strategy: how configurations are drawn (the sampler), and which trials are stopped early (the pruner)."""

from collections.abc import Callable
from dataclasses import dataclass

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from hpsearch.search.options import Named
from hpsearch.search.pruners import make_pruner, parse_pruner, rung_plan
from hpsearch.search.samplers import fixed_points, make_sampler, parse_sampler
from hpsearch.space import Params
from hpsearch.study import Study

NO_PRUNER = "none"


@dataclass(frozen=True)
class Strategy:
    """A sampler and a pruner, each with its options."""

    sampler: Named
    pruner: Named

    @classmethod
    def of(cls, sampler: str, pruner: str = NO_PRUNER) -> "Strategy":
        """Parse a sampler and a pruner, such as `tpe:n_startup_trials=5`, into a strategy.

        Raises UsageError for an unknown name or option, or an option's value that is not allowed.
        """
        return cls(parse_sampler(sampler), parse_pruner(pruner))

    @classmethod
    def parse(cls, text: str) -> "Strategy":
        """Parse a strategy written as `SAMPLER[+PRUNER]`. Raises UsageError as `of` does."""
        sampler, _, pruner = text.partition("+")
        return cls.of(sampler, pruner or NO_PRUNER)

    def __str__(self) -> str:
        return f"{self.sampler}" + ("" if self.pruner.text == NO_PRUNER else f"+{self.pruner}")

    def make_sampler(self, study: Study, seed: int) -> BaseSampler:
        """Return the sampler for a study with a given seed."""
        return make_sampler(self.sampler, seed, study)

    def make_pruner(self, intervals: int, seed: int) -> BasePruner:
        """Return the pruner for a study whose trials have at most `intervals` intervals.

        Raises UsageError if its options do not fit this number.
        """
        return make_pruner(self.pruner, intervals, seed)

    def points(self, study: Study, left_out: Callable[[str], None] = lambda message: None) -> list[Params] | None:
        """Return the params that new trials get in order, or None if the sampler draws them.

        The list is empty for `manual`, which runs only enqueued trials. `left_out` is called for the grid points that
        do not meet a requirement. Raises UsageError as `fixed_points` does.
        """
        return fixed_points(self.sampler, study, left_out)

    def plan(self, intervals: int, unit: str = "interval") -> str | None:
        """Return, in one line, when a Hyperband pruner compares trials, or None for another pruner."""
        return rung_plan(self.pruner, intervals, unit)

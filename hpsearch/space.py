"""The search space, written as plain Python.

A recipe asks a `Space` for its hyperparameters; a conditional parameter is an `if`. The kind of space decides which
values it gets: `ReplaySpace` returns fixed ones (workers, resume, retrain, export), `grid_points` visits every
combination, `DrawnSpace` draws them at random, `middle` takes the middle of each range, `describe` finds out which
parameters there are, and a running Optuna trial (`hpsearch.search`) suggests values. A recipe can turn a configuration
away with `Space.require`. This module depends on neither torch nor Optuna.
"""

import contextlib
import math
import random
import time
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hpsearch.errors import RequirementNotMet, UsageError
from hpsearch.text import brief

Scalar = None | bool | int | float | str
Params = dict[str, Any]
# The maximum number of grid points.
MOST = 100_000
# The database stores numbers as doubles, which represent every whole number up to this one.
EXACT = 2**53
# How many configurations are drawn to find one that meets the requirements, for how many seconds at most, and how many
# that do are compared.
DRAWS, DRAW_SECONDS, CANDIDATES = 500, 10.0, 10
# `Space.float` and `Space.int` shadow the built-in types inside the class.
_Real = float
_Whole = int
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Float:
    """A real number in [low, high]; `grid` is a number of points (log-spaced if `log`) or the points themselves."""

    name: str
    low: float
    high: float
    log: bool = False
    step: float | None = None
    grid: int | Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_range(self.name, self.low, self.high, self.log)
        if self.step is not None and (not _is_number(self.step) or not 0 < self.step < math.inf or self.log):
            raise UsageError(f"{self.name}: step must be positive and cannot go with log, got step={brief(self.step)}")
        if self.grid is not None and not 1 <= (self.grid if isinstance(self.grid, int) else len(self.grid)) <= MOST:
            raise UsageError(f"{self.name}: grid must be at least one point, at most {MOST:,}, got {brief(self.grid)}")
        for point in self.points or ():
            self.check(point)

    @property
    def points(self) -> tuple[float, ...] | None:
        """The grid points, or None if the user gave none."""
        if self.grid is None or not isinstance(self.grid, int):
            return None if self.grid is None else tuple(float(point) for point in self.grid)
        if self.grid == 1:
            return (_middle(self.low, self.high, self.log),)
        fractions = [i / (self.grid - 1) for i in range(self.grid)]
        if self.log:
            inner = [self.low * (self.high / self.low) ** f for f in fractions[1:-1]]
        else:
            inner = [self.low + (self.high - self.low) * f for f in fractions[1:-1]]
        return tuple(dict.fromkeys((self.low, *inner, self.high)))

    @property
    def probes(self) -> tuple[float, ...]:
        """A few representative values, for finding out where the recipe branches."""
        return tuple(dict.fromkeys((self.low, *(self.points or ()), self.high)))

    @property
    def middle(self) -> float:
        """The midpoint of the range on the parameter's own scale, rounded down to a step if need be."""
        return self._on_step(_middle(self.low, self.high, self.log))

    def draw(self, generator: random.Random) -> float:
        """Return a value drawn uniformly on the parameter's own scale."""
        share = generator.random()
        if self.log:
            return self._on_step(self.low * (self.high / self.low) ** share)
        # Up to the next step, so that all steps are equally likely.
        return self._on_step(self.low + share * (self.high - self.low + (self.step or 0.0)))

    def _on_step(self, value: float) -> float:
        value = min(max(value, self.low), self.high)
        if self.step is None:
            return value
        # Rounded up a little, or 1.0 would be 9 steps of 0.1.
        steps = math.floor((value - self.low) / self.step + 1e-9)
        return min(self.low + steps * self.step, self.high)

    def check(self, value: Any) -> float:
        """Return `value` as a float in range. Raises UsageError otherwise."""
        if not _is_number(value):
            raise UsageError(f"{self.name} must be a number from {self.low:g} to {self.high:g}, got {brief(value)}")
        if not self.low <= value <= self.high:
            raise UsageError(f"{self.name} must be from {self.low:g} to {self.high:g}, got {brief(value)}")
        return float(value)

    def __str__(self) -> str:
        tail = " log" if self.log else f" step {self.step:g}" if self.step else ""
        return f"{self.low:g} .. {self.high:g}{tail}"


@dataclass(frozen=True, kw_only=True)
class Int:
    """A whole number in [low, high] in steps of `step`; its grid is every value unless `grid` is given."""

    name: str
    low: int
    high: int
    log: bool = False
    step: int = 1
    grid: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for bound in (self.low, self.high, self.step):
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise UsageError(f"{self.name}: low, high and step must be whole numbers, got {brief(bound)}")
            if abs(bound) > EXACT:
                raise UsageError(
                    f"{self.name}: low, high and step must be from -2**53 to 2**53, which the database keeps exactly, "
                    f"got {brief(bound)}"
                )
        _check_range(self.name, self.low, self.high, self.log)
        if self.step < 1 or (self.log and self.step != 1):
            raise UsageError(f"{self.name}: step must be at least 1, and 1 with log, got step={self.step}")
        if not self.points:
            raise UsageError(f"{self.name}: grid must be at least one point, got {self.grid}")

    @property
    def points(self) -> Sequence[int]:
        """The grid points; a range if the user gave none, as there may be billions."""
        if self.grid is None:
            return range(self.low, self.high + 1, self.step)
        return tuple(self.check(point) for point in self.grid)

    @property
    def probes(self) -> tuple[int, ...]:
        """A few representative values, for finding out where the recipe branches."""
        points = self.points
        return tuple(points) if len(points) <= 8 else (points[0], points[1], points[-1])

    @property
    def middle(self) -> int:
        """The midpoint of the range on the parameter's own scale, rounded down to a step if need be."""
        middle = max(math.floor(_middle(self.low, self.high, self.log)), self.low)
        return self.low + (middle - self.low) // self.step * self.step

    def draw(self, generator: random.Random) -> int:
        """Return a value drawn uniformly on the parameter's own scale."""
        if self.log:
            value: int = math.floor(self.low * ((self.high + 1) / self.low) ** generator.random())
            return min(max(value, self.low), self.high)
        return generator.choice(range(self.low, self.high + 1, self.step))

    def check(self, value: Any) -> int:
        """Return `value` as an int in range and on a step. Raises UsageError otherwise."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(f"{self.name} must be a whole number from {self.low} to {self.high}, got {brief(value)}")
        if not self.low <= value <= self.high or (value - self.low) % self.step:
            steps = f" in steps of {self.step}" if self.step > 1 else ""
            raise UsageError(f"{self.name} must be from {self.low} to {self.high}{steps}, got {brief(value)}")
        return value

    def __str__(self) -> str:
        tail = " log" if self.log else f" step {self.step}" if self.step > 1 else ""
        return f"{self.low} .. {self.high}{tail}"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several options. The labels are stored and shown; the recipe gets the values."""

    name: str
    options: Mapping[Scalar, Any]

    def __post_init__(self) -> None:
        if not self.options:
            raise UsageError(f"{self.name}: choice needs at least one option")

    @property
    def points(self) -> tuple[Scalar, ...]:
        """The grid points: every label."""
        return tuple(self.options)

    probes = points

    @property
    def middle(self) -> Scalar:
        """The middle label in the order given; the first of two."""
        return self.points[(len(self.points) - 1) // 2]

    def draw(self, generator: random.Random) -> Scalar:
        """Return one of the labels, all equally likely."""
        return generator.choice(self.points)

    def check(self, value: Any) -> Scalar:
        """Return the label equal to `value`. Raises UsageError when there is none."""
        for label in self.options:
            if label == value and isinstance(label, bool) == isinstance(value, bool):
                return label
        known = ", ".join(map(str, self.options))
        raise UsageError(f"{self.name} must be one of {known}; got {brief(value)}")

    def __str__(self) -> str:
        return ", ".join(map(str, self.options))


Parameter = Float | Int | Choice


def _check_range(name: str, low: float, high: float, log: bool) -> None:
    if not name or not isinstance(name, str):
        raise UsageError(f"a parameter's name must be a non-empty string, got {name!r}")
    if not (_is_number(low) and _is_number(high)):
        raise UsageError(f"{name}: low and high must be numbers, got low={brief(low)}, high={brief(high)}")
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise UsageError(f"{name}: low must not exceed high and both be finite, got low={low}, high={high}")
    if log and low <= 0:
        raise UsageError(f"{name}: a log scale needs low > 0, got low={low}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _middle(low: float, high: float, log: bool) -> float:
    return math.sqrt(low * high) if log else (low + high) / 2


class Space(ABC):
    """The source of a recipe's hyperparameters. Subclasses choose the values; the checks are here.

    `requirements` are the messages of the requirements that the recipe has named, `unmet` is the first that was not
    met, or None. With `goes_on`, the recipe continues after that, so that its other parameters become known too.
    """

    goes_on = False

    def __init__(self) -> None:
        self.parameters: dict[str, Parameter] = {}
        self.params: Params = {}
        self.requirements: list[str] = []
        self.unmet: str | None = None

    def float(
        self,
        name: str,
        low: _Real,
        high: _Real,
        *,
        log: bool = False,
        step: _Real | None = None,
        grid: _Whole | Sequence[_Real] | None = None,
    ) -> _Real:
        """Return a real number in [low, high], on a log scale or in steps if asked."""
        value: _Real = self._draw(Float(name=name, low=low, high=high, log=log, step=step, grid=grid))
        return value

    def int(
        self,
        name: str,
        low: _Whole,
        high: _Whole,
        *,
        log: bool = False,
        step: _Whole = 1,
        grid: Sequence[_Whole] | None = None,
    ) -> _Whole:
        """Return a whole number in [low, high]."""
        value: _Whole = self._draw(Int(name=name, low=low, high=high, log=log, step=step, grid=grid))
        return value

    def choice(self, name: str, options: Sequence[T] | Mapping[Any, T]) -> T:
        """Return one option. `options` is a list of scalars, or a dict of label to any value."""
        if not isinstance(options, Mapping):
            for option in options:
                if not (option is None or isinstance(option, bool | int | float | str)):
                    raise UsageError(
                        f"{name}: an option must be None, a bool, number or string, got {option!r}; "
                        f"for other values give a dict, {{label: value}}"
                    )
            labels: Mapping[Any, T] = {option: option for option in options}
            if len(labels) < len(options):
                raise UsageError(
                    f"{name}: two of the options {list(options)} are equal in Python; give them as strings"
                )
            options = labels
        parameter = Choice(name=name, options=dict(options))
        value: T = parameter.options[self._draw(parameter)]
        return value

    def require(self, condition: bool, message: str) -> None:
        """Turn the configuration away before it is trained, unless `condition` is true.

        `message` is the requirement, such as "fewer than 50,000 parameters". The condition may use the model: a search
        builds it on torch's meta device, where it costs nothing. Raises RequirementNotMet, which ends the recipe, where
        the configuration is fixed; a search may first ask for the remaining parameters.
        """
        if not isinstance(condition, bool):
            raise UsageError(
                f"space.require: the condition must be True or False, got {brief(condition)}; bool(...) makes it one"
            )
        if not isinstance(message, str) or not message.strip():
            raise UsageError(
                f"space.require: the message must say what is required, such as 'fewer than 50,000 parameters', "
                f"got {brief(message)}"
            )
        message = " ".join(message.split())
        if message not in self.requirements:
            self.requirements.append(message)
        if condition or self.unmet is not None:
            return
        self.unmet = message
        if not self.goes_on:
            raise RequirementNotMet(message)

    def _draw(self, parameter: Parameter) -> Any:
        known = self.parameters.get(parameter.name)
        if known is None:
            self.params[parameter.name] = self._pick(parameter)
            self.parameters[parameter.name] = parameter
        elif known != parameter:
            raise UsageError(f"{parameter.name} is asked for twice with different ranges: {known} and {parameter}")
        return self.params[parameter.name]

    @abstractmethod
    def _pick(self, parameter: Parameter) -> Any:
        """Return a value `parameter.check` accepts."""


RecipeFunction = Callable[[Space], T]


class ReplaySpace(Space):
    """Returns fixed `params`. Raises UsageError for a parameter that is missing or out of range."""

    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__()
        self._fixed = params

    def _pick(self, parameter: Parameter) -> Any:
        if parameter.name not in self._fixed:
            raise UsageError(f"the params lack {parameter.name} ({parameter}); got {', '.join(self._fixed) or 'none'}")
        return parameter.check(self._fixed[parameter.name])


def replay(recipe: RecipeFunction[T], params: Mapping[str, Any]) -> T:
    """Return `recipe` at fixed `params`. Raises UsageError if one is missing, out of range, or not asked for."""
    space = ReplaySpace(params)
    result = recipe(space)
    if unused := [name for name in params if name not in space.params]:
        raise UsageError(
            f"the recipe does not use {', '.join(unused)} with these params; it asks for {', '.join(space.params)}"
        )
    return result


class _NotPure(UsageError):
    """A recipe asked for different parameters with equal params."""


class _NoGridPoints(UsageError):
    """A float without `grid=`, or a range that is too long, cannot be enumerated."""


@dataclass
class _Level:
    """One parameter on the path to a grid point, with the index of its current point."""

    parameter: Parameter
    points: Sequence[Any]
    index: int = 0


class _WalkSpace(Space):
    """Returns the points along a path of levels; a new parameter extends it, at its first point."""

    def __init__(self, path: list[_Level], points: Callable[[Parameter], Sequence[Any]]) -> None:
        super().__init__()
        self._path = path
        self._points = points

    def _pick(self, parameter: Parameter) -> Any:
        depth = len(self.params)
        if depth == len(self._path):
            self._path.append(_Level(parameter, self._points(parameter)))
        level = self._path[depth]
        if level.parameter.name != parameter.name:
            raise _NotPure(
                f"the recipe is not pure: with equal params it asked for {level.parameter.name}, "
                f"then for {parameter.name}"
            )
        return level.points[level.index]


def _walk(recipe: RecipeFunction[Any], points: Callable[[Parameter], Sequence[Any]]) -> Iterator[_WalkSpace]:
    """Run `recipe` once per leaf of its tree of conditions, depth first (the last parameter varies fastest)."""
    path: list[_Level] = []
    while True:
        space = _WalkSpace(path, points)
        failed = False
        try:
            recipe(space)
        except (_NoGridPoints, _NotPure):
            raise
        except Exception:
            # Still a grid point: the trial that gets it will fail with this error.
            failed = True
        if len(space.params) < len(path) and not failed:
            gone = path[len(space.params)].parameter.name
            raise _NotPure(f"the recipe is not pure: with equal params it asked for {gone} once, then not again")
        del path[len(space.params) :]
        yield space
        while path and path[-1].index + 1 == len(path[-1].points):
            path.pop()
        if not path:
            return
        path[-1].index += 1


class DrawnSpace(Space):
    """Draws values at random, each uniformly on its parameter's own scale; without a generator, takes the middles."""

    def __init__(self, generator: random.Random | None = None) -> None:
        super().__init__()
        self._generator = generator

    def _pick(self, parameter: Parameter) -> Any:
        return parameter.middle if self._generator is None else parameter.draw(self._generator)


def draw(recipe: RecipeFunction[Any], count: int, seconds: float, seed: int = 0) -> Iterator[Space]:
    """Yield up to `count` spaces after `recipe`, for about `seconds`: the first at the middle, the others at random.

    An error of the recipe is left to those who use the params.
    """
    generator, began = random.Random(seed), time.monotonic()
    for number in range(count):
        space = DrawnSpace(generator if number else None)
        with contextlib.suppress(Exception):
            recipe(space)
        yield space
        if time.monotonic() - began > seconds:
            return


def middle(recipe: RecipeFunction[Any]) -> Params:
    """Return params from the middle of the space: each parameter's `middle`, or near it, to meet the requirements.

    Raises UsageError if no configuration that is tried meets them.
    """
    unmet: Counter[str] = Counter()
    found: list[Space] = []
    for space in draw(recipe, DRAWS, DRAW_SECONDS):
        if space.unmet is not None:
            unmet[space.unmet] += 1
            continue
        found.append(space)
        if not unmet:
            return space.params
        if len(found) == CANDIDATES:
            break
    if not found:
        tried = unmet.total()
        raise UsageError(f"no configuration meets the requirements: of {tried} tried, {counted(unmet)}; widen them")
    return min(found, key=_distance).params


def counted(unmet: Mapping[str, int]) -> str:
    """Return how many configurations do not meet each requirement, the most frequent first, in one line."""
    most = sorted(unmet.items(), key=lambda item: -item[1])
    texts = [f"{count:,} not {message!r}" for message, count in most[:3]]
    others = sum(count for _, count in most[3:])
    return ", ".join(texts) + (f", {others:,} not others" if others else "")


def _distance(space: Space) -> float:
    """Return how far the params of a space are from the middle: the largest share of a range, from 0 to 1."""
    return max((_share(space.parameters[name], value) for name, value in space.params.items()), default=0.0)


def _share(parameter: Parameter, value: Any) -> float:
    if isinstance(parameter, Choice):
        labels = parameter.points
        return abs(labels.index(value) - labels.index(parameter.middle)) / len(labels)
    low, high, middle = (
        math.log(number) if parameter.log else number for number in (parameter.low, parameter.high, parameter.middle)
    )
    distance: float = abs((math.log(value) if parameter.log else value) - middle)
    return distance / ((high - low) or 1.0)


def _grid(parameter: Parameter) -> Sequence[Any]:
    if parameter.points is None:
        raise _NoGridPoints(
            f"{parameter.name} has no grid points: give space.float({parameter.name!r}, ..., grid=4) "
            f"or grid=[values], or choose another sampler than grid"
        )
    return parameter.points


def grid_points(
    recipe: RecipeFunction[Any], limit: int = MOST, left_out: Callable[[str], None] = lambda message: None
) -> list[Params]:
    """Return every grid point of a recipe; a conditional parameter counts only in the branches that ask for it.

    Points that do not meet a requirement are left out; `left_out` is called with the requirement for each combination
    of the values on which it depends. Raises UsageError for a float without `grid=`, if no point is left, and when
    there are more than `limit` points.
    """
    unmet: Counter[str] = Counter()

    def few(parameter: Parameter) -> Sequence[Any]:
        # The grid has at least as many points as any of its parameters.
        if len(points := _grid(parameter)) > limit:
            raise _NoGridPoints(
                f"{parameter.name} alone has {len(points):,} grid points: give it fewer with grid=[...]"
            )
        return points

    points = []
    for space in _walk(recipe, few):
        if space.unmet is not None:
            unmet[space.unmet] += 1
            left_out(space.unmet)
        else:
            points.append(space.params)
        if len(points) + unmet.total() > limit:
            raise UsageError(f"the grid has more than {limit:,} points; give fewer grid= values or another sampler")
    if not points:
        raise UsageError(f"no grid point meets the requirements: of {unmet.total():,}, {counted(unmet)}; widen them")
    return points


@dataclass
class Described:
    """A parameter as the recipe declares it, and the values of other parameters under which it is asked for."""

    parameter: Parameter
    conditions: dict[str, tuple[Any, ...]] = field(default_factory=dict)


class _ProbeSpace(Space):
    """Returns the assigned values, and the first probe of every other parameter."""

    goes_on = True

    def __init__(self, assigned: Params) -> None:
        super().__init__()
        self._assigned = assigned

    def _pick(self, parameter: Parameter) -> Any:
        value = self._assigned.get(parameter.name, parameter.probes[0])
        return value if value in parameter.probes else parameter.probes[0]


def describe(recipe: RecipeFunction[Any], limit: int = 2_000) -> dict[str, Described]:
    """Return the parameters a recipe can ask for, by running it at up to `limit` points of the space.

    Every label of a choice is tried, and the ends and grid points of numbers: each alone, and in all pairs. A branch
    that needs a value inside a range (`if lr > 0.037`) or three values at once may be missed. Requirements turn no
    point away, as parameters may be asked for after them. A recipe may raise at some points; if it raises at all of
    them, so does this function.
    """
    leaves: list[Space] = []
    described: dict[str, Described] = {}
    depends: dict[str, set[str]] = {}
    queue: deque[tuple[Params, str | None, Space | None]] = deque([({}, None, None)])
    queued = {frozenset[tuple[str, Any]]()}
    failure: Exception | None = None
    tried = 0
    while queue and tried < limit:
        assigned, changed, parent = queue.popleft()
        leaf = _ProbeSpace(assigned)
        try:
            recipe(leaf)
        except Exception as error:
            failure = failure or error
            whole = False
        else:
            leaves.append(leaf)
            whole = True
        if whole and changed is not None and parent is not None:
            # The two differ in one assignment, so what only one of them asks for depends on it.
            for name in leaf.params.keys() ^ parent.params.keys():
                depends.setdefault(name, set()).add(changed)
        for name, parameter in leaf.parameters.items():
            if name in assigned or (len(assigned) > 1 and name in described):
                continue
            for value in parameter.probes[1:]:
                key = frozenset({**assigned, name: value}.items())
                if key not in queued:
                    queued.add(key)
                    queue.append(({**assigned, name: value}, name, leaf if whole else None))
        for name, parameter in leaf.parameters.items():
            described.setdefault(name, Described(parameter))
        tried += 1
    if not leaves and failure is not None:
        raise failure
    for name in described:
        others = depends.get(name, set())
        # A parameter that opens a branch may be conditional itself.
        for opener in list(others):
            others |= depends.get(opener, set())
        having = [leaf for leaf in leaves if name in leaf.params]
        for other in (parameter for parameter in described if parameter in others):
            values = dict.fromkeys(leaf.params[other] for leaf in having if other in leaf.params)
            described[name].conditions[other] = tuple(sorted(values, key=str))
    return described

import math
import random
from itertools import product
from typing import Any

import pytest

from hpsearch import Space, UsageError
from hpsearch.space import Choice, Float, Int, ReplaySpace, describe, grid_points, replay


def conditional(space: Space) -> dict[str, Any]:
    """Draw a flat parameter, a conditional one, and one conditional on that."""
    drawn: dict[str, Any] = {"optimizer": space.choice("optimizer", ["sgd", "adam"])}
    if drawn["optimizer"] == "sgd":
        drawn["momentum"] = space.float("momentum", 0.0, 0.9, grid=[0.0, 0.9])
        if drawn["momentum"] > 0:
            drawn["nesterov"] = space.choice("nesterov", [False, True])
    drawn["width"] = space.int("width", 1, 2)
    return drawn


def layered(space: Space) -> list[int]:
    """Draw as many widths as there are layers."""
    return [space.int(f"width_{i}", 2, 4, step=2) for i in range(space.int("n_layers", 1, 3))]


class TestReplay:
    def test_gives_back_every_value(self) -> None:
        params = {"optimizer": "sgd", "momentum": 0.5, "nesterov": True, "width": 2}
        assert replay(conditional, params) == params
        assert replay(conditional, {"optimizer": "adam", "width": 1}) == {"optimizer": "adam", "width": 1}

    def test_does_not_depend_on_the_order_of_the_params(self) -> None:
        params = {"width": 1, "nesterov": False, "momentum": 0.9, "optimizer": "sgd"}
        assert replay(conditional, params) == params

    def test_a_missing_param_is_named_with_its_range(self) -> None:
        with pytest.raises(UsageError, match=r"lack momentum \(0 \.\. 0\.9\); got optimizer, width"):
            replay(conditional, {"optimizer": "sgd", "width": 1})

    def test_params_without_any_value(self) -> None:
        with pytest.raises(UsageError, match=r"lack optimizer \(sgd, adam\); got none"):
            replay(conditional, {})

    def test_an_unused_param_is_named_with_what_is_asked_for(self) -> None:
        with pytest.raises(UsageError, match=r"does not use momentum .*asks for optimizer, width"):
            replay(conditional, {"optimizer": "adam", "width": 1, "momentum": 0.5})

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"momentum": 0.95}, "momentum must be from 0 to 0.9, got 0.95"),
            ({"momentum": -1}, "momentum must be from 0 to 0.9, got -1"),
            ({"momentum": math.nan}, "momentum must be from 0 to 0.9, got nan"),
            ({"momentum": "0.5"}, "momentum must be a number from 0 to 0.9, got '0.5'"),
            ({"momentum": True}, "momentum must be a number from 0 to 0.9, got True"),
            ({"width": 3}, "width must be from 1 to 2, got 3"),
            ({"width": 1.5}, "width must be a whole number from 1 to 2, got 1.5"),
            ({"width": True}, "width must be a whole number from 1 to 2, got True"),
            ({"optimizer": "lion"}, "optimizer must be one of sgd, adam; got 'lion'"),
            ({"nesterov": 1}, "nesterov must be one of False, True; got 1"),
        ],
    )
    def test_a_value_out_of_range_is_named(self, change: dict[str, Any], message: str) -> None:
        params = {"optimizer": "sgd", "momentum": 0.5, "nesterov": True, "width": 2}
        with pytest.raises(UsageError) as raised:
            replay(conditional, params | change)
        assert message in str(raised.value)

    def test_numbers_come_back_in_the_declared_type(self) -> None:
        def recipe(space: Space) -> tuple[float, int]:
            return space.float("x", 0, 4), space.int("n", 0, 4)

        x, n = replay(recipe, {"x": 2, "n": 3.0})
        assert (x, type(x), n, type(n)) == (2.0, float, 3, int)

    def test_an_int_off_its_steps_is_refused(self) -> None:
        def recipe(space: Space) -> int:
            return space.int("n", 1, 9, step=4)

        assert [replay(recipe, {"n": n}) for n in (1, 5, 9)] == [1, 5, 9]
        with pytest.raises(UsageError, match="n must be from 1 to 9 in steps of 4, got 4"):
            replay(recipe, {"n": 4})


class TestGrid:
    def test_every_point_of_nested_conditionals_once(self) -> None:
        assert grid_points(conditional) == [
            {"optimizer": "sgd", "momentum": 0.0, "width": 1},
            {"optimizer": "sgd", "momentum": 0.0, "width": 2},
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": False, "width": 1},
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": False, "width": 2},
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "width": 1},
            {"optimizer": "sgd", "momentum": 0.9, "nesterov": True, "width": 2},
            {"optimizer": "adam", "width": 1},
            {"optimizer": "adam", "width": 2},
        ]

    def test_a_loop_over_layers_counts_two_plus_four_plus_eight(self) -> None:
        expected = [
            {"n_layers": n, **{f"width_{i}": width for i, width in enumerate(widths)}}
            for n in (1, 2, 3)
            for widths in product((2, 4), repeat=n)
        ]
        assert len(expected) == 14
        assert grid_points(layered) == expected

    def test_every_point_replays(self) -> None:
        for recipe in (conditional, layered):
            for point in grid_points(recipe):
                space = ReplaySpace(point)
                recipe(space)
                assert space.params == point

    def test_a_recipe_without_parameters_has_one_point(self) -> None:
        assert grid_points(lambda space: None) == [{}]

    def test_a_float_without_grid_is_named(self) -> None:
        def recipe(space: Space) -> None:
            space.float("lr", 0.1, 1.0, grid=2)
            space.float("momentum", 0.0, 0.9)

        with pytest.raises(UsageError, match=r"momentum has no grid points: give space.float\('momentum', .*grid="):
            grid_points(recipe)

    def test_a_float_without_grid_in_a_later_branch_is_found(self) -> None:
        def recipe(space: Space) -> None:
            if space.choice("optimizer", ["adam", "sgd"]) == "sgd":
                space.float("momentum", 0.0, 0.9)

        with pytest.raises(UsageError, match="momentum has no grid points"):
            grid_points(recipe)

    def test_more_points_than_the_limit(self) -> None:
        def recipe(space: Space) -> None:
            space.int("a", 1, 4)
            space.int("b", 1, 4)

        assert len(grid_points(recipe, limit=16)) == 16
        with pytest.raises(UsageError, match="more than 15 points"):
            grid_points(recipe, limit=15)

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"low": 0.0, "high": 1.0, "grid": 5}, [0.0, 0.25, 0.5, 0.75, 1.0]),
            ({"low": 1e-4, "high": 1e-1, "grid": 4, "log": True}, [1e-4, 1e-3, 1e-2, 1e-1]),
            ({"low": 1.0, "high": 3.0, "grid": 1}, [2.0]),
            ({"low": 1e-4, "high": 1e-2, "grid": 1, "log": True}, [1e-3]),
            ({"low": 0.0, "high": 1.0, "grid": [0.5, 0]}, [0.5, 0.0]),
        ],
    )
    def test_points_of_a_float(self, settings: dict[str, Any], expected: list[float]) -> None:
        points = [point["x"] for point in grid_points(lambda space: space.float("x", **settings))]
        assert points == pytest.approx(expected, rel=1e-12)
        assert all(type(point) is float and settings["low"] <= point <= settings["high"] for point in points)

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"low": 1, "high": 4}, [1, 2, 3, 4]),
            ({"low": 1, "high": 9, "step": 4}, [1, 5, 9]),
            ({"low": 1, "high": 10, "step": 4}, [1, 5, 9]),
            ({"low": 1, "high": 64, "log": True, "grid": [1, 8, 64]}, [1, 8, 64]),
            ({"low": 1, "high": 64, "grid": [2.0, 4.0]}, [2, 4]),
        ],
    )
    def test_points_of_an_int(self, settings: dict[str, Any], expected: list[int]) -> None:
        points = [point["n"] for point in grid_points(lambda space: space.int("n", **settings))]
        assert points == expected
        assert all(type(point) is int for point in points)

    def test_a_range_of_one_value_has_one_point(self) -> None:
        assert grid_points(lambda space: space.float("x", 2.0, 2.0, grid=3)) == [{"x": 2.0}]


class TestDescribe:
    def test_finds_conditions(self) -> None:
        found = describe(conditional)
        assert {name: described.conditions for name, described in found.items()} == {
            "optimizer": {},
            "momentum": {"optimizer": ("sgd",)},
            "nesterov": {"optimizer": ("sgd",), "momentum": (0.9,)},
            "width": {},
        }
        assert found["momentum"].parameter == Float(name="momentum", low=0.0, high=0.9, grid=[0.0, 0.9])

    def test_finds_a_branch_on_an_int(self) -> None:
        assert {name: described.conditions for name, described in describe(layered).items()} == {
            "n_layers": {},
            "width_0": {},
            "width_1": {"n_layers": (2, 3)},
            "width_2": {"n_layers": (3,)},
        }

    def test_a_float_needs_no_grid(self) -> None:
        assert list(describe(lambda space: space.float("lr", 1e-4, 1e-1, log=True))) == ["lr"]

    def test_a_branch_at_the_end_of_a_range_is_seen(self) -> None:
        def recipe(space: Space) -> None:
            if space.float("dropout", 0.0, 0.5) > 0:
                space.choice("kind", ["element", "channel"])

        assert describe(recipe)["kind"].conditions == {"dropout": (0.5,)}

    def test_a_condition_does_not_depend_on_the_order_of_the_options(self) -> None:
        def recipe(space: Space) -> None:
            space.int("width", 1, 2)
            if space.choice("optimizer", ["adam", "sgd"]) == "sgd" and space.choice("momentum", [0.0, 0.9]) > 0:
                space.choice("nesterov", [False, True])
            space.choice("batch_size", [16, 32])

        assert {name: described.conditions for name, described in describe(recipe).items()} == {
            "width": {},
            "optimizer": {},
            "momentum": {"optimizer": ("sgd",)},
            "nesterov": {"optimizer": ("sgd",), "momentum": (0.9,)},
            "batch_size": {},
        }

    @pytest.mark.parametrize("options", [[None, "cosine"], ["cosine", None], ["step", None, "cosine"]])
    def test_none_is_an_option_like_any_other(self, options: list[Any]) -> None:
        def recipe(space: Space) -> None:
            if space.choice("schedule", options) == "cosine":
                space.float("warmup", 0.0, 0.5)

        assert describe(recipe)["warmup"].conditions == {"schedule": ("cosine",)}

    def test_tries_every_label_of_a_choice_in_a_space_of_many_parameters(self) -> None:
        def recipe(space: Space) -> None:
            optimizer = space.choice("optimizer", ["adam", "sgd"])
            for i in range(12):
                space.float(f"x_{i}", 0.0, 1.0)
            if optimizer == "sgd":
                space.float("momentum", 0.0, 0.9)

        assert "momentum" in describe(recipe)


class TestPurity:
    def test_another_parameter_at_equal_params_is_an_error(self) -> None:
        calls = 0

        def recipe(space: Space) -> None:
            nonlocal calls
            calls += 1
            space.int("first" if calls < 3 else "other", 1, 2)
            space.int("second", 1, 2)

        with pytest.raises(UsageError, match="not pure: with equal params it asked for first, then for other"):
            grid_points(recipe)

    def test_no_longer_asking_at_equal_params_is_an_error(self) -> None:
        calls = 0

        def recipe(space: Space) -> None:
            nonlocal calls
            calls += 1
            space.int("first", 1, 2)
            if calls == 1:
                space.int("second", 1, 2)

        with pytest.raises(UsageError, match=r"not pure.*second"):
            grid_points(recipe)

    def test_asking_twice_gives_the_same_value(self) -> None:
        def recipe(space: Space) -> tuple[int, int]:
            return space.int("n", 1, 3), space.int("n", 1, 3)

        assert replay(recipe, {"n": 2}) == (2, 2)
        assert grid_points(recipe) == [{"n": 1}, {"n": 2}, {"n": 3}]

    def test_asking_twice_with_another_range_is_an_error(self) -> None:
        def recipe(space: Space) -> None:
            space.float("lr", 0.1, 0.5)
            space.float("lr", 0.1, 0.6)

        with pytest.raises(UsageError, match=r"lr is asked for twice .* 0\.1 \.\. 0\.5 and 0\.1 \.\. 0\.6"):
            replay(recipe, {"lr": 0.2})

    def test_asking_twice_with_another_kind_is_an_error(self) -> None:
        def recipe(space: Space) -> None:
            space.int("n", 1, 2)
            space.choice("n", [1, 2])

        with pytest.raises(UsageError, match="n is asked for twice"):
            replay(recipe, {"n": 1})


class TestChoice:
    def test_labels_of_a_dict_are_stored_and_its_values_given(self) -> None:
        hidden = {"narrow": [8], "wide": [64, 64]}

        def recipe(space: Space) -> list[int]:
            return space.choice("hidden", hidden)

        assert replay(recipe, {"hidden": "wide"}) == [64, 64]
        assert grid_points(recipe) == [{"hidden": "narrow"}, {"hidden": "wide"}]
        with pytest.raises(UsageError, match="hidden must be one of narrow, wide"):
            replay(recipe, {"hidden": [8]})

    def test_scalars_of_every_kind(self) -> None:
        options = [None, False, 2, 0.5, "text"]

        def recipe(space: Space) -> Any:
            return space.choice("x", options)

        assert [point["x"] for point in grid_points(recipe)] == options
        for option in options:
            drawn = replay(recipe, {"x": option})
            assert (drawn, type(drawn)) == (option, type(option))

    @pytest.mark.parametrize(("options", "value"), [([0, 1], True), ([0, 1], False), ([False, True], 1)])
    def test_a_bool_is_not_a_number(self, options: list[Any], value: Any) -> None:
        with pytest.raises(UsageError, match="x must be one of"):
            replay(lambda space: space.choice("x", options), {"x": value})

    @pytest.mark.parametrize("options", [[1, True], [0, False, 2], [1, 1.0]])
    def test_options_that_are_equal_are_refused_and_not_dropped(self, options: list[Any]) -> None:
        with pytest.raises(UsageError, match="x"):
            describe(lambda space: space.choice("x", options))

    def test_a_list_of_other_values_asks_for_a_dict(self) -> None:
        with pytest.raises(UsageError, match=r"hidden: an option must be .* got \[8\].*\{label: value\}"):
            describe(lambda space: space.choice("hidden", [[8], [64]]))

    def test_no_options(self) -> None:
        with pytest.raises(UsageError, match="x: choice needs at least one option"):
            Choice(name="x", options={})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 1.0, "high": 0.0}, "low must not exceed high"),
        ({"low": 0.0, "high": math.inf}, "both be finite, got low=0.0, high=inf"),
        ({"low": math.nan, "high": 1.0}, "both be finite"),
        ({"low": 0.0, "high": 1.0, "log": True}, "a log scale needs low > 0, got low=0.0"),
        ({"low": 0.0, "high": 1.0, "step": 0.0}, "step must be positive"),
        ({"low": 0.0, "high": 1.0, "step": math.nan}, "step must be positive and cannot go with log, got step=nan"),
        ({"low": 0.0, "high": 1.0, "step": "0.1"}, "step must be positive"),
        ({"low": 0.1, "high": 1.0, "step": 0.1, "log": True}, "cannot go with log, got step=0.1"),
        ({"low": 0.0, "high": 1.0, "grid": 0}, "grid must be at least one point, at most 100,000, got 0"),
        ({"low": 0.0, "high": 1.0, "grid": []}, "grid"),
        ({"low": 0.0, "high": 1.0, "grid": [0.5, 2.0]}, "x must be from 0 to 1, got 2"),
        ({"low": "0", "high": 1.0}, "'0'"),
    ],
)
def test_a_wrong_float_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Float(name="x", **settings)
    assert str(raised.value).startswith("x")
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"low": 2, "high": 1}, "low must not exceed high"),
        ({"low": 1.0, "high": 2}, "must be whole numbers, got 1.0"),
        ({"low": False, "high": 2}, "must be whole numbers, got False"),
        ({"low": 0, "high": 8, "log": True}, "a log scale needs low > 0, got low=0"),
        ({"low": 1, "high": 8, "step": 0}, "step must be at least 1"),
        ({"low": 1, "high": 8, "step": 2, "log": True}, "1 with log, got step=2"),
        ({"low": 1, "high": 8, "grid": [9]}, "n must be from 1 to 8, got 9"),
        ({"low": 1, "high": 9, "step": 2, "grid": [2]}, "in steps of 2, got 2"),
        ({"low": 1, "high": 9, "grid": []}, "grid"),
    ],
)
def test_a_wrong_int_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Int(name="n", **settings)
    assert str(raised.value).startswith("n")
    assert message in str(raised.value)


@pytest.mark.parametrize("name", ["", 3])
def test_a_name_must_be_a_non_empty_string(name: Any) -> None:
    with pytest.raises(UsageError, match="name must be a non-empty string"):
        describe(lambda space: space.float(name, 0.0, 1.0))


@pytest.mark.parametrize(
    ("parameter", "text"),
    [
        (Float(name="x", low=1e-4, high=0.1, log=True), "0.0001 .. 0.1 log"),
        (Float(name="x", low=0, high=1, step=0.25), "0 .. 1 step 0.25"),
        (Int(name="n", low=1, high=64, log=True), "1 .. 64 log"),
        (Int(name="n", low=8, high=64, step=8), "8 .. 64 step 8"),
        (Choice(name="c", options={None: 1, "b": 2}), "None, b"),
    ],
)
def test_a_parameter_reads_as_its_range(parameter: Float | Int | Choice, text: str) -> None:
    assert str(parameter) == text


class TestLongRanges:
    """A range is described, shown and searched without being counted through."""

    def test_a_long_int_is_described_at_its_ends(self) -> None:
        found = describe(lambda space: space.int("n", 1, 2**53, log=True))["n"].parameter
        assert isinstance(found, Int)
        assert found.probes == (1, 2, 2**53)
        assert found.middle == 94_906_265

    @pytest.mark.parametrize("settings", [{"low": 1, "high": 2**53 + 1}, {"low": -(2**63), "high": 0}])
    def test_what_the_database_cannot_hold_is_refused(self, settings: dict[str, Any]) -> None:
        with pytest.raises(UsageError, match=r"n: low, high and step must be from -2\*\*53 to 2\*\*53"):
            Int(name="n", **settings)

    def test_a_grid_over_a_long_int_is_refused_at_once(self) -> None:
        calls = []

        def recipe(space: Space) -> None:
            calls.append(space)
            space.int("n", 1, 20_000_000, log=True)

        with pytest.raises(UsageError, match=r"n alone has 20,000,000 grid points: give it fewer with grid=\[...\]"):
            grid_points(recipe)
        assert len(calls) == 1

    def test_so_is_a_number_of_grid_points_that_is_none(self) -> None:
        with pytest.raises(UsageError, match="x: grid must be at least one point, at most 100,000"):
            Float(name="x", low=0, high=1, grid=10**9)


@pytest.mark.parametrize(
    ("parameter", "middle"),
    [
        (Float(name="x", low=1e-4, high=1e-2, log=True), 1e-3),
        (Float(name="x", low=0, high=1), 0.5),
        (Float(name="x", low=0, high=1, step=0.4), 0.4),
        (Float(name="x", low=0.1, high=0.1, log=True), 0.1),
        (Int(name="n", low=1, high=64, log=True), 8),
        (Int(name="n", low=8, high=64, step=8), 32),
        (Int(name="n", low=-5, high=-4), -5),
        (Choice(name="c", options={"a": 1, "b": 2, "c": 3}), "b"),
        (Choice(name="c", options={"a": 1, "b": 2}), "a"),
    ],
)
def test_the_middle_is_half_way_on_the_parameters_scale(parameter: Float | Int | Choice, middle: object) -> None:
    assert parameter.middle == pytest.approx(middle) if isinstance(middle, float) else parameter.middle == middle
    assert parameter.check(parameter.middle) == parameter.middle


@pytest.mark.parametrize(
    "value",
    [10**4000, 10**5000, "x" * 5000, [[[[[[[[1]]]]]]]], math.nan],
    ids=["4000 digits", "5000 digits", "long", "deep", "nan"],
)
def test_a_value_of_any_size_is_refused_in_a_short_line(value: Any) -> None:
    for parameter in (Float(name="x", low=0, high=1), Int(name="x", low=0, high=1), Choice(name="x", options={1: 1})):
        with pytest.raises(UsageError, match=r"^x must be") as raised:
            parameter.check(value)
        assert len(str(raised.value)) < 160


def test_a_range_in_steps_is_drawn_up_to_its_top() -> None:
    """1.0 // 0.1 is 9, and 0.3 // 0.1 is 2."""
    parameter = Float(name="p", low=0.0, high=1.0, step=0.1)
    generator = random.Random(0)
    drawn = {round(parameter.draw(generator), 6) for _ in range(500)}
    assert drawn == {round(0.1 * step, 6) for step in range(11)}
    assert parameter.middle == pytest.approx(0.5)

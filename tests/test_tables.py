import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from hpsearch import Dataset, Split, UsageError, table
from hpsearch.datasets import fingerprint, tables
from support.in_process import hpsearch_here


def splits(dataset: Dataset) -> Iterator[Split]:
    for split in (dataset.train, dataset.validation, dataset.test):
        assert isinstance(split, Split)
        yield split


@pytest.fixture
def frame() -> pd.DataFrame:
    """120 rows of numbers, some missing, and of categories of every type."""
    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draw.integers(18, 90, 120),
            "colour": draw.choice(["red", "green", "blue"], 120),
            "income": draw.lognormal(10, 1, 120),
            "member": draw.random(120) < 0.4,
            "level": pd.Categorical(draw.choice([3, 10, 200], 120)),
            "visits": pd.array(draw.integers(0, 9, 120), dtype="Int64"),
            "kind": np.repeat(["setosa", "virginica", "versicolor"], [60, 40, 20]),
        }
    )
    frame.loc[draw.random(120) < 0.2, "income"] = np.nan
    frame.loc[draw.random(120) < 0.1, "visits"] = pd.NA
    return frame


def rows(targets: Any, seed: int, validation: int, test: int) -> tuple[list[int], list[int], list[int]]:
    """Return the rows of the three splits as scikit-learn draws them."""
    rest, tested = train_test_split(range(len(targets)), test_size=test, stratify=targets, random_state=seed)
    train, validated = train_test_split(rest, test_size=validation, stratify=targets[rest], random_state=seed)
    return train, validated, tested


def by_scikit_learn(frame: pd.DataFrame, train: list[int], numbers: list[str], categories: list[str]) -> np.ndarray:
    """Return all rows' numbers and missing indicators, then their categories, fitted to the training rows."""
    numeric = frame[numbers].astype(float)
    known = numeric.iloc[train]
    scaled = SimpleImputer(strategy="constant", fill_value=0).fit_transform(
        StandardScaler().fit(known).transform(numeric)
    )
    absent = SimpleImputer(add_indicator=True).fit(known).transform(numeric)[:, len(numbers) :]
    encoder = ColumnTransformer([("", OneHotEncoder(handle_unknown="ignore", sparse_output=False), categories)])
    hot = encoder.fit(frame.iloc[train]).transform(frame)
    return np.hstack([scaled, absent, hot])


class TestTable:
    def test_everything_as_scikit_learn_computes_it(self, frame: pd.DataFrame) -> None:
        dataset = table(frame, target="kind", validation=0.25, test=0.15, seed=7)
        assert dataset.classes == ("setosa", "versicolor", "virginica")
        assert dataset.note == ""
        targets = frame["kind"].map({"setosa": 0, "versicolor": 1, "virginica": 2}).to_numpy()
        parts = rows(targets, 7, 30, 18)
        expected = by_scikit_learn(frame, parts[0], ["age", "income", "visits"], ["colour", "member", "level"])
        # In the order of the columns: age, colour (3), income, its missing, member (2), level (3), visits, its missing.
        order = [0, 5, 6, 7, 1, 3, 8, 9, 10, 11, 12, 2, 4]
        for split, part in zip(splits(dataset), parts, strict=True):
            assert split.inputs.dtype == torch.float32
            np.testing.assert_allclose(split.inputs.numpy(), expected[part][:, order], atol=1e-6)
            assert split.targets.tolist() == targets[part].tolist()

    def test_the_training_split_is_standardised(self, frame: pd.DataFrame) -> None:
        train, *_ = splits(table(frame[["age", "kind"]], target="kind"))
        assert train.inputs.shape == (72, 1)
        assert train.inputs.mean().item() == pytest.approx(0, abs=1e-6)
        assert train.inputs.std(unbiased=False).item() == pytest.approx(1, abs=1e-6)

    def test_a_csv_file_gives_the_same(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        expected = fingerprint(table(frame, target="kind"))
        # pandas writes an Int64 as an integer; a category of numbers would be read as numbers.
        frame["level"] = frame["level"].map({3: "a", 10: "b", 200: "c"})
        for index in (False, True):
            frame.to_csv(tmp_path / "people.csv", index=index)
            assert fingerprint(table(tmp_path / "people.csv", target="kind")) == expected

    def test_a_relative_path_is_looked_up_in_the_data_folder(
        self, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        frame.to_csv(tmp_path / "people.csv", index=False)
        monkeypatch.setenv("HPSEARCH_DATA", str(tmp_path))
        assert len(table("people.csv", target="kind").train) == 72  # type: ignore[arg-type]

    def test_the_frame_is_left_alone(self, frame: pd.DataFrame) -> None:
        before = frame.copy()
        table(frame, target="kind")
        pd.testing.assert_frame_equal(frame, before)

    def test_the_index_does_not_matter(self, frame: pd.DataFrame) -> None:
        other = frame.set_index(pd.Index([7] * len(frame)))
        assert fingerprint(table(other, target="kind")) == fingerprint(table(frame, target="kind"))

    def test_categories_that_only_other_splits_have_are_all_zeros(self, frame: pd.DataFrame) -> None:
        _, validation, test = rows(frame["kind"], 0, 24, 24)
        frame.loc[validation[3], "colour"] = "violet"
        frame.loc[test[5], "colour"] = "gold"
        train, validated, tested = splits(table(frame[["colour", "kind"]], target="kind"))
        assert train.inputs.shape[1] == 3
        assert validated.inputs.sum(1).tolist() == [float(row != 3) for row in range(24)]
        assert tested.inputs.sum(1).tolist() == [float(row != 5) for row in range(24)]

    def test_missing_categories_are_a_category_the_last(self, frame: pd.DataFrame) -> None:
        missing = np.random.default_rng(1).random(120) < 0.3
        for kind in (object, "str", "category"):
            frame["colour"] = frame["colour"].astype(kind).mask(missing)
            train, *_ = splits(table(frame[["colour", "kind"]], target="kind"))
            known = rows(frame["kind"], 0, 24, 24)[0]
            assert train.inputs.shape[1] == 4
            assert train.inputs[:, 3].tolist() == missing[known].tolist()
            assert train.inputs[:, 0].tolist() == (frame["colour"].iloc[known] == "blue").tolist()

    def test_numbers_missing_outside_the_training_split_become_its_mean(self, frame: pd.DataFrame) -> None:
        _, validation, _ = rows(frame["kind"], 0, 24, 24)
        frame["age"] = frame["age"].astype(float)
        frame.loc[validation[2], "age"] = np.nan
        _, validated, _ = splits(table(frame[["age", "kind"]], target="kind"))
        assert validated.inputs.shape[1] == 1
        assert validated.inputs[2] == 0

    def test_a_constant_with_missing_values_says_only_where(self, frame: pd.DataFrame) -> None:
        missing = np.random.default_rng(1).random(120) < 0.3
        frame["age"] = np.where(missing, np.nan, 0.1)
        dataset = table(frame[["age", "kind"]], target="kind")
        known = rows(frame["kind"], 0, 24, 24)[0]
        assert next(splits(dataset)).inputs[:, 0].tolist() == missing[known].tolist()
        assert next(splits(dataset)).inputs.shape[1] == 1
        assert dataset.note == ""

    def test_columns_that_say_nothing_are_dropped_with_a_note(self, frame: pd.DataFrame) -> None:
        expected = fingerprint(table(frame, target="kind"))
        frame.insert(0, "country", "CH")
        frame.insert(3, "empty", np.nan)
        frame["year"] = 2024.1
        frame["none"] = None
        dataset = table(frame, target="kind")
        assert fingerprint(dataset) == expected
        assert dataset.note == (
            "a table without its columns country (constant), empty (all missing), year (constant), none (all missing)"
        )

    @pytest.mark.parametrize(
        ("values", "classes"),
        [
            ([10, 9, 2], ("2", "9", "10")),
            (["b", "a", "C"], ("C", "a", "b")),
            ([True, False, True], ("False", "True")),
            (pd.Categorical(["low", "high", "low"], ["low", "high"]), ("high", "low")),
            (["a", 1, "b"], ("1", "a", "b")),
        ],
        ids=["integers", "strings", "booleans", "categories", "mixed"],
    )
    def test_classes_are_sorted(self, values: Any, classes: tuple[str, ...]) -> None:
        target = pd.concat([pd.Series(values)] * 20, ignore_index=True)
        dataset = table(pd.DataFrame({"x": range(60), "y": target}), target="y")
        assert dataset.classes == classes
        counts = target.astype(str).value_counts()
        found = torch.bincount(torch.cat([split.targets for split in splits(dataset)]))
        assert found.tolist() == [counts[name] for name in classes]

    def test_a_target_named_by_a_number(self) -> None:
        frame = pd.DataFrame({0: range(20), 1: [0, 1] * 10})
        assert table(frame, target=1).classes == ("0", "1")

    def test_seeds(self, frame: pd.DataFrame) -> None:
        first = fingerprint(table(frame, target="kind"))
        assert fingerprint(table(frame, target="kind", seed=0)) == first
        assert fingerprint(table(frame, target="kind", seed=1)) != first

    def test_the_same_file_in_another_process_and_one_changed_value(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        path = tmp_path / "people.csv"
        frame.to_csv(path, index=False)
        code = (
            "import sys; from hpsearch import table; from hpsearch.datasets import fingerprint; "
            "print(fingerprint(table(sys.argv[1], target='kind')))"
        )
        done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
        before = fingerprint(table(path, target="kind"))
        assert done.stdout.strip() == str(before)
        frame.loc[rows(frame["kind"], 0, 24, 24)[0][0], "age"] += 1
        frame.to_csv(path, index=False)
        assert fingerprint(table(path, target="kind")) != before


def test_a_target_of_floating_point_numbers_is_not_classes(frame: pd.DataFrame) -> None:
    frame["income"] = frame["income"].fillna(0.5)
    data = table(frame, target="income", validation=0.25, test=0.25)
    assert data.classes == ()
    splits = [getattr(data, name) for name in ("train", "validation", "test")]
    assert [len(split) for split in splits] == [60, 30, 30]
    found = torch.cat([split.targets for split in splits]).sort().values
    assert torch.equal(found, torch.tensor(frame["income"].to_numpy(dtype="float32")).sort().values)
    # As objects, which they may be in a DataFrame made by hand.
    other = table(frame.assign(income=frame["income"].astype(object)), target="income", validation=0.25, test=0.25)
    assert torch.equal(other.train.targets, data.train.targets)  # type: ignore[union-attr]


class TestErrors:
    def refused(self, data: Any, target: Any = "kind", **options: Any) -> str:
        with pytest.raises(UsageError) as raised:
            table(data, target=target, **options)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def test_no_such_column(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        assert self.refused(frame, "kinds") == "the DataFrame has no column 'kinds': did you mean 'kind'?"
        frame[["age", "kind"]].to_csv(tmp_path / "people.csv", index=False)
        message = self.refused(tmp_path / "people.csv", "species")
        assert message == f"{tmp_path}/people.csv has no column 'species': it has age, kind"

    def test_a_target_with_missing_values(self, frame: pd.DataFrame) -> None:
        frame.loc[[3, 4, 50], "kind"] = None
        assert self.refused(frame) == "target 'kind' is missing in 3 rows: drop them or fill it in"
        assert self.refused(frame, "income").startswith(
            f"target 'income' is missing in {frame['income'].isna().sum()} rows"
        )

    def test_numbers_that_cannot_be_predicted(self, frame: pd.DataFrame) -> None:
        frame["income"] = frame["income"].fillna(0.5)
        infinite = frame.assign(income=frame["income"].replace(0.5, float("inf")))
        assert self.refused(infinite, "income") == (
            "target 'income' has infinite values, or too large ones: replace or drop them"
        )
        message = self.refused(frame.assign(income=frame["income"].astype(complex)), "income")
        assert message == "target 'income' is of type complex128: give real numbers or classes"
        assert "are too few to be split" in self.refused(frame.head(4), "income", test=0.1)

    def test_too_many_classes(self, frame: pd.DataFrame) -> None:
        frame["number"] = range(len(frame))
        message = self.refused(frame, "number")
        assert message.startswith("target 'number' has 120 classes, more than 100: is it the right column?")

    def test_a_single_class(self, frame: pd.DataFrame) -> None:
        assert self.refused(frame.assign(kind="a")) == "target 'kind' has a single class, 'a': two are needed"

    def test_a_class_too_small_to_be_split(self, frame: pd.DataFrame) -> None:
        frame.loc[0, "kind"] = "rare"
        assert self.refused(frame).startswith("class 'rare' has 1 row, too few to be in every split with test=0.2 and")

    def test_no_rows(self, frame: pd.DataFrame) -> None:
        assert self.refused(frame[:0]) == "the DataFrame has no rows"
        assert self.refused(pd.DataFrame()) == "the DataFrame has no column 'kind': it has none"

    def test_nothing_to_learn_from(self, frame: pd.DataFrame) -> None:
        assert self.refused(frame[["kind"]]) == "the DataFrame has no columns to learn from beside 'kind'"
        message = "the DataFrame has no columns to learn from beside 'kind': dropped were one (constant)"
        assert self.refused(frame[["kind"]].assign(one=1)) == message

    def test_duplicate_columns(self, frame: pd.DataFrame, tmp_path: Path) -> None:
        frame.columns = ["age", "income", "income", *frame.columns[3:]]
        message = "has the column 'income' more than once: rename or drop it"
        assert self.refused(frame) == f"the DataFrame {message}"
        frame.to_csv(tmp_path / "people.csv", index=False)
        assert self.refused(tmp_path / "people.csv") == f"{tmp_path}/people.csv {message}"

    def test_infinite_values(self, frame: pd.DataFrame) -> None:
        frame.loc[[3, 7], "income"] = np.inf
        assert self.refused(frame) == "column 'income' has 2 infinite values: replace or drop them"

    @pytest.mark.parametrize(
        "values", [pd.date_range("2024", periods=120), np.ones(120) * 1j], ids=["dates", "complex"]
    )
    def test_columns_of_other_types(self, frame: pd.DataFrame, values: Any) -> None:
        message = self.refused(frame.assign(when=values))
        assert message.startswith("column 'when' is of type ")
        assert message.endswith(": convert it to numbers or strings, or drop it")

    def test_texts_are_no_categories(self, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tables, "MOST_CATEGORIES", 71)
        frame["name"] = [f"name {index}" for index in range(120)]
        message = "column 'name' has 72 categories, more than 71: drop it, or merge some of them"
        assert self.refused(frame) == message

    def test_files_that_are_no_csv(self, tmp_path: Path) -> None:
        path = tmp_path / "people.csv"
        assert self.refused(path) == f"there is no {path}"
        for content in (b"", b"a,b\n1,2\n1,2,3,4\n", b"\xff\xfe\x00\x81,b\n1,2\n"):
            path.write_bytes(content)
            assert self.refused(path).startswith(f"{path} cannot be read as CSV: ")
        assert self.refused(tmp_path).startswith(f"{tmp_path} cannot be read as CSV: ")

    def test_numbers_too_large_to_standardise(self, frame: pd.DataFrame) -> None:
        message = "column 'mass' has values too large to be standardised: rescale it"
        assert self.refused(frame.assign(mass=np.linspace(1, 10, 120) * 1e300)) == message
        # The training split's own values are small here.
        frame["mass"] = np.linspace(1, 2, 120)
        frame.loc[rows(frame["kind"], 0, 24, 24)[1][0], "mass"] = 1e100
        assert self.refused(frame) == message

    @pytest.mark.parametrize("seed", [-1, 2**32, 1.5, "a", True, None])
    def test_a_wrong_seed(self, frame: pd.DataFrame, seed: Any) -> None:
        message = f"seed must be a whole number from 0 to 4294967295, got {seed!r}"
        assert self.refused(frame, seed=seed) == message

    def test_neither_a_frame_nor_a_path(self) -> None:
        message = self.refused([[1, 2]])
        assert message == "table: expected a pandas DataFrame or the path of a CSV file, got list"


STUDY = '''"""Wine from a CSV file."""

from functools import partial

from hpsearch import MLP, Adam, Recipe, Space, Study, table


def recipe(space: Space) -> Recipe:
    lr = space.float("lr", 1e-3, 1e-1, log=True)
    return Recipe(model=MLP(inputs=13, hidden=(8,), classes=3), optimizer=Adam(lr=lr), batch_size=8)


study = Study(recipe=recipe, dataset=partial(table, "wine.csv", target="target"), epochs=3)
'''


def test_a_study_of_a_table_from_its_first_trial_to_the_final_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wine = load_wine(as_frame=True).frame
    wine.assign(year=1991).to_csv(tmp_path / "wine.csv", index=False)
    (tmp_path / "vintage.py").write_text(STUDY)
    options = ("--study", "./vintage.py", "--sampler", "random", "--pruner", "none", "--workers", "0")
    assert not hpsearch_here(tmp_path, "check", "--study", "./vintage.py")
    assert "a table without its column year (constant)" in capsys.readouterr().out
    assert hpsearch_here(tmp_path, "run", *options, "--n-trials", "2") == 0
    assert hpsearch_here(tmp_path, "run", *options, "--n-trials", "3") == 0
    assert "the data are a table without its column year (constant)" in capsys.readouterr().err
    assert hpsearch_here(tmp_path, "report", "--study", "./vintage.py") == 0
    assert len((tmp_path / "reports/vintage/trials.csv").read_text().splitlines()) == 1 + 3
    hpsearch_here(tmp_path, "export", "--study", "./vintage.py")
    retrain = ("retrain", "best/vintage-1.json", "--study", "./vintage.py", "--seeds", "1", "--workers", "0")
    assert hpsearch_here(tmp_path, *retrain) == 0
    wine.assign(alcohol=wine["alcohol"].round()).to_csv(tmp_path / "wine.csv", index=False)
    with pytest.raises(UsageError, match="data train was"):
        hpsearch_here(tmp_path, "run", *options, "--n-trials", "4")

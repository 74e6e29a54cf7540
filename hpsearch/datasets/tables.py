"""Tables of numbers and categories, from a pandas DataFrame or a CSV file."""

import difflib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hpsearch.datasets.dataset import Dataset, Split
from hpsearch.datasets.folders import find
from hpsearch.datasets.preprocessing import preprocessed
from hpsearch.datasets.splitting import split_off
from hpsearch.errors import UsageError
from hpsearch.text import brief, plural

if TYPE_CHECKING:
    import pandas as pd

    Column = np.ndarray[tuple[int, ...], np.dtype[Any]]

MOST_CLASSES = 100
# More are rather names or texts, and one input for each would not fit into memory.
MOST_CATEGORIES = 1_000


def table(
    data: "pd.DataFrame | str | Path",
    *,
    target: Hashable,
    validation: float = 0.2,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """The rows of a DataFrame or a CSV file as examples of the classes, or the numbers, in the column `target`.

    Shares of `validation` and `test` are split off, stratified by class. A relative path is looked up in the working
    directory, then in the data folder. Inputs are (N, features), in the order of the columns and as the training split
    has them:

    - Numbers are standardised by their mean and (population) standard deviation. Missing ones become the mean, and a
      feature of 0 and 1 that says where they are missing follows, if any are in the training split.
    - Strings, booleans and other categories are one-hot, in sorted order, a missing value being a category of its own,
      the last. Categories that the training split does not have are all zeros.
    - Columns without values or with one value only are dropped, which `Dataset.note` says.

    Classes are the target's values in sorted order, and may be integers, strings, booleans or categories. A target of a
    floating-point type is numbers, which are not changed, for a measure such as "MSE". Raises UsageError for a target
    that is missing, has missing or infinite values, or fewer than two or more than 100 classes; for infinite values,
    duplicate columns, types that are neither numbers nor categories, and a file that cannot be read.
    """
    frame, name = _frame(data)
    _check_columns(frame, target, name)
    targets, classes = _targets(frame[target], target)
    shares = {"test": test, "validation": validation}
    rows = Split(torch.arange(len(frame)), targets)
    parts = split_off(rows, shares, seed=seed, classes=classes, noun="row")
    train = parts[0].inputs.numpy()
    columns, dropped = [], []
    for column in frame.columns.drop([target]):
        values, categories = _values(frame[column], column)
        if len(np.unique(values[train])) > 1:
            columns.append(
                _numbers(values, train, column)
                if categories is None
                else _categories(values, categories, train, column)
            )
        else:
            dropped.append(f"{column} ({'all missing' if frame[column].iloc[train].isna().all() else 'constant'})")
    if not columns:
        raise UsageError(
            f"{name} has no columns to learn from beside {brief(target)}"
            + (f": dropped were {', '.join(dropped)}" if dropped else "")
        )
    raw = torch.from_numpy(np.stack([column.values for column in columns], axis=1))
    splits: dict[str, Any] = {
        split: Split(raw[part.inputs], part.targets) for split, part in zip(("train", *shares), parts, strict=True)
    }
    note = f"a table without its {'columns' if len(dropped) > 1 else 'column'} {', '.join(dropped)}" if dropped else ""
    return preprocessed(RowEncoding(columns), **splits, classes=classes, note=note)


def _frame(data: "pd.DataFrame | str | Path") -> "tuple[pd.DataFrame, str]":
    """Return the table and its name in messages."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data, "the DataFrame"
    if not isinstance(data, str | Path):
        raise UsageError(f"table: expected a pandas DataFrame or the path of a CSV file, got {type(data).__name__}")
    path = find(data)
    try:
        frame = pd.read_csv(path, low_memory=False)
        # pandas renames duplicate columns, so the names are read as they are in the file.
        header = pd.read_csv(path, header=None, nrows=1, dtype=str, keep_default_na=False)
    # ParserError, EmptyDataError and UnicodeDecodeError are ValueErrors.
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as CSV: {' '.join(str(error).split())}") from error
    names = header.iloc[0].tolist()
    _check_duplicates([column for column in names if column], str(path))
    if not names[0] and frame.iloc[:, 0].tolist() == list(range(len(frame))):
        # The row numbers that `DataFrame.to_csv` writes; in a sorted table they would give the classes away.
        frame = frame.iloc[:, 1:]
    return frame, str(path)


def _check_duplicates(names: Sequence[Hashable], table: str) -> None:
    duplicates = [name for index, name in enumerate(names) if name in names[:index]]
    if duplicates:
        raise UsageError(f"{table} has the column {brief(duplicates[0])} more than once: rename or drop it")


def _check_columns(frame: "pd.DataFrame", target: Hashable, name: str) -> None:
    columns = frame.columns.tolist()
    _check_duplicates(columns, name)
    if target not in columns:
        near = difflib.get_close_matches(str(target), map(str, columns), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(map(str, columns[:20])) or 'none'}"
        raise UsageError(f"{name} has no column {brief(target)}: {hint}")
    if frame.empty:
        raise UsageError(f"{name} has no rows")


def _targets(column: "pd.Series[Any]", name: Hashable) -> tuple[torch.Tensor, tuple[str, ...]]:
    """Return each row's class number and the classes' names in the order of their values; or numbers, and no names."""
    from pandas.api import types

    missing = int(column.isna().sum())
    if missing:
        raise UsageError(f"target {brief(name)} is missing in {plural(missing, 'row')}: drop them or fill it in")
    column = column.infer_objects()
    if types.is_complex_dtype(column.dtype):
        raise UsageError(f"target {brief(name)} is of type {column.dtype}: give real numbers or classes")
    if types.is_float_dtype(column.dtype):
        numbers = column.to_numpy(dtype=np.float32)
        if not np.isfinite(numbers).all():
            raise UsageError(f"target {brief(name)} has infinite values, or too large ones: replace or drop them")
        return torch.from_numpy(numbers), ()
    codes, distinct = _coded(column)
    if len(distinct) == 1:
        raise UsageError(f"target {brief(name)} has a single class, {brief(distinct[0])}: two are needed")
    if len(distinct) > MOST_CLASSES:
        raise UsageError(
            f"target {brief(name)} has {len(distinct):,} classes, more than {MOST_CLASSES}: is it the right column? "
            f"If they are numbers to be predicted, convert it to float"
        )
    return torch.from_numpy(codes), tuple(map(str, distinct))


def _values(column: "pd.Series[Any]", name: Hashable) -> "tuple[Column, list[Any] | None]":
    """Return a column as float64 numbers, NaN where they are missing, or as the int64 numbers of its categories.

    The categories are returned as well, the last one None, for missing values.
    """
    from pandas.api import types

    column = column.infer_objects()
    kind = column.dtype
    categorical = isinstance(kind, types.CategoricalDtype) or types.is_bool_dtype(kind)
    if categorical or types.is_object_dtype(kind) or types.is_string_dtype(kind):
        codes, distinct = _coded(column)
        return codes, [*distinct, None]
    if not types.is_numeric_dtype(kind) or types.is_complex_dtype(kind):
        raise UsageError(f"column {brief(name)} is of type {kind}: convert it to numbers or strings, or drop it")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise UsageError(f"column {brief(name)} has {plural(infinite, 'infinite value')}: replace or drop them")
    return values, None


def _coded(column: "pd.Series[Any]") -> "tuple[Column, list[Any]]":
    """Return the place of each row's value among the sorted values, a missing one's after them, and these values."""
    missing = column.isna().to_numpy()
    values = column.astype(object).to_numpy()
    try:
        distinct = sorted(set(values[~missing]))
    except TypeError:
        # They are of several types, or cannot be compared.
        values = np.array([str(value) for value in values], dtype=object)
        distinct = sorted(set(values[~missing]))
    places = {value: place for place, value in enumerate(distinct)}
    codes = [len(distinct) if absent else places[value] for value, absent in zip(values, missing, strict=True)]
    return np.array(codes, dtype=np.int64), distinct


@dataclass(frozen=True, kw_only=True)
class _Feature:
    """A standardised number, or whether a value is a category, or, with neither, whether it is missing (NaN)."""

    mean: float | None = None
    deviation: float = 1.0
    category: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class _Column:
    """A column's raw values (rows,) float64, the features made of them, and what the final model's file says of it."""

    values: "Column"
    features: Sequence[_Feature]
    about: dict[str, Any]


def _numbers(values: "Column", train: "Column", name: Hashable) -> _Column:
    known, missing = values[train], np.isnan(values)
    features = []
    if np.nanmin(known) < np.nanmax(known):
        with np.errstate(over="ignore", invalid="ignore"):
            mean, deviation = np.nanmean(known), np.nanstd(known)
            scaled = np.where(missing, 0, (values - mean) / deviation).astype(np.float32)
        if not (np.isfinite(deviation) and np.isfinite(scaled).all()):
            raise UsageError(f"column {brief(name)} has values too large to be standardised: rescale it")
        features.append(_Feature(mean=float(mean), deviation=float(deviation)))
    if missing[train].any():
        features.append(_Feature())
    return _Column(values=values, features=features, about={"name": str(name)})


def _categories(codes: "Column", categories: Sequence[Any], train: "Column", name: Hashable) -> _Column:
    known = np.unique(codes[train])
    if len(known) > MOST_CATEGORIES:
        raise UsageError(
            f"column {brief(name)} has {len(known):,} categories, more than {MOST_CATEGORIES:,}: "
            f"drop it, or merge some of them"
        )
    places = np.full(len(categories), -1.0)
    places[known] = np.arange(len(known))
    return _Column(
        values=places[codes],
        features=[_Feature(category=place) for place in range(len(known))],
        about={"name": str(name), "categories": [_plain(categories[code]) for code in known]},
    )


def _plain(value: Any) -> str | int | float | bool | None:
    """Return a value as JSON has it."""
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | None) else str(value)


class RowEncoding(nn.Module):
    """Makes features (N, features) float32 of rows (N, columns) float64.

    A row has numbers, NaN where they are missing, and for a category its place in `about["columns"]`, which a missing
    value may have as well (None), or -1 for any other. Raises RuntimeError for other values.
    """

    column: Tensor
    is_number: Tensor
    mean: Tensor
    deviation: Tensor
    category: Tensor
    categorical: Tensor
    counts: Tensor

    def __init__(self, columns: Sequence[_Column]) -> None:
        super().__init__()
        self.about = {"kind": "table", "columns": [column.about for column in columns]}
        features = [(place, feature) for place, column in enumerate(columns) for feature in column.features]
        counts = {
            place: len(column.about["categories"])
            for place, column in enumerate(columns)
            if "categories" in column.about
        }
        for name, values, dtype in (
            ("column", [place for place, _ in features], torch.int64),
            ("is_number", [feature.mean is not None for _, feature in features], torch.bool),
            ("mean", [feature.mean or 0.0 for _, feature in features], torch.float64),
            ("deviation", [feature.deviation for _, feature in features], torch.float64),
            ("category", [feature.category for _, feature in features], torch.float64),
            ("categorical", list(counts), torch.int64),
            ("counts", list(counts.values()), torch.float64),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=dtype))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the features of rows."""
        codes = rows[:, self.categorical]
        is_place = (codes == codes.floor()) & (codes >= -1) & (codes < self.counts)
        # Asserts that are kept in an exported program.
        torch._assert_async(is_place.all(), "a category must be given by its place, or as -1")
        torch._assert_async(~rows.isinf().any(), "a number is infinite")
        values = rows[:, self.column]
        numbers = torch.where(values.isnan(), 0.0, (values - self.mean) / self.deviation)
        # Also for onnxruntime, which has no `where` of booleans.
        is_category = (values == self.category) | (self.category.isnan() & values.isnan())
        return torch.where(self.is_number, numbers, is_category).to(torch.float32)

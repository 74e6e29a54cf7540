import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, pad_sequence

from hpsearch import SGD, CrossEntropy, Dataset, Recipe, Space, Split, Steps, Study, UsageError
from hpsearch.errors import WorkerDied
from hpsearch.executors import Died, Ended, InlineExecutor, Task
from hpsearch.loading import Loader, call, in_order, source, take
from hpsearch.training import IntervalReport, Run, evaluate, train
from support.command_line import Started, hpsearch, wait_for

CPU = torch.device("cpu")
BuildStudy = Callable[..., Study]


class Augmented(torch.utils.data.Dataset[Any]):
    """Images with noise and a flip, drawn from torch's, numpy's and Python's generators."""

    def __init__(self, split: Any, before: Callable[[int], None] = lambda index: None) -> None:
        self.split = split
        self.before = before

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.before(index)
        image = self.split.inputs[index]
        if random.random() < 0.5:
            image = image.flip(-1)
        return image + 0.1 * torch.randn(()) + float(np.random.normal(0, 0.1)), self.split.targets[index]


def augmented(data: Dataset, workers: int, before: Callable[[int], None] = lambda index: None) -> Dataset:
    train_split, validation = Augmented(data.train, before), Augmented(data.validation)
    return replace(data, train=train_split, validation=validation, loader_workers=workers)


def started(study: Study, data: Dataset, seed: int = 3) -> Run:
    return Run(study, {"lr": 0.1}, data, seed=seed)


def without_seconds(reports: Iterator[IntervalReport]) -> list[IntervalReport]:
    return [replace(report, seconds=0.0) for report in reports]


def loader_workers() -> list[psutil.Process]:
    return [process for process in psutil.Process().children(recursive=True) if process.name() == "pt_data_worker"]


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("interval", [1, Steps(3)])
def test_a_run_is_the_same_with_any_number_of_loader_workers(
    interval: Any, tiny_study: BuildStudy, few_digits: Dataset
) -> None:
    study = tiny_study(dropout=0.3, interval=interval)
    results = []
    for workers in (0, 1, 2):
        run = started(study, augmented(few_digits, workers))
        results.append((without_seconds(train(run)), [p.tolist() for p in run.model.parameters()]))
    assert results[0] == results[1] == results[2]
    other = started(study, augmented(few_digits, 2), seed=4)
    assert without_seconds(train(other)) != results[0][0]


def test_batches_do_not_depend_on_the_interval(tiny_study: BuildStudy, few_digits: Dataset) -> None:
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 10)
            self.seen: list[Tensor] = []

        def forward(self, images: Tensor) -> Tensor:
            if self.training:
                self.seen.append(images)
            return self.layer(images.flatten(1))

    seen = []
    for interval, workers in ((1, 0), (2, 2), (Steps(3), 1)):
        study = replace(
            tiny_study(interval=interval),
            recipe=lambda space: Recipe(model=Kept(), optimizer=SGD(lr=space.float("lr", 0, 1)), batch_size=32),
        )
        run = started(study, augmented(few_digits, workers))
        list(train(run))
        seen.append(torch.cat(run.model.seen))  # type: ignore[arg-type]
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])
    # Augmented anew in each epoch.
    assert len(seen[0].flatten(1).unique(dim=0)) == 3 * len(few_digits.train)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_continues_exactly(workers: int, tiny_study: BuildStudy, few_digits: Dataset) -> None:
    study, data = tiny_study(dropout=0.3, interval=Steps(3)), augmented(few_digits, workers)
    whole = without_seconds(train(started(study, data)))
    for after in (1, 2):
        first = started(study, data)
        training = train(first)
        for _ in range(after):
            next(training)
        training.close()
        second = started(study, replace(data, loader_workers=2 - workers))
        second.load_state_dict(first.state_dict())
        assert without_seconds(train(second)) == whole[after:]


def test_workers_serve_all_intervals_and_end_with_the_training(tiny_study: BuildStudy, few_digits: Dataset) -> None:
    training = train(started(tiny_study(), augmented(few_digits, 2)))
    next(training)
    first = {process.pid for process in loader_workers()}
    assert len(first) == 4  # Two for the training split, two for the validation split.
    next(training)
    assert {process.pid for process in loader_workers()} == first
    training.close()
    assert loader_workers() == []


@pytest.mark.parametrize("asked", [1, 3])
def test_stopping_in_the_middle_of_an_epoch_ends_the_workers(
    asked: int, tiny_study: BuildStudy, few_digits: Dataset
) -> None:
    calls = iter(range(100))
    run = started(tiny_study(), augmented(few_digits, 2))
    assert list(train(run, lambda: next(calls) == asked)) == []
    assert loader_workers() == []


def test_a_worker_in_a_slow_example_is_not_waited_for(few_digits: Dataset) -> None:
    parent = os.getpid()
    data = augmented(few_digits, 2, before=lambda index: time.sleep(60 * (os.getpid() != parent)))
    began = time.monotonic()
    loader = source(data, "train", CPU)
    assert isinstance(loader, Loader)
    loader._requests.waiting = iter([(torch.arange(2), 0)] * 2)
    loader._started()
    loader.close()
    assert time.monotonic() - began < 20
    assert loader_workers() == []


def test_the_callers_random_states_and_handlers_are_left_alone(tiny_study: BuildStudy, few_digits: Dataset) -> None:
    def states() -> list[object]:
        handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM)]
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        numpy_state = repr(np.random.get_state(legacy=False))
        return [random.getstate(), numpy_state, torch.get_rng_state().tolist(), handlers, masked]

    before = states()
    list(train(started(tiny_study(), augmented(few_digits, 1))))
    assert states() == before


def test_an_error_in_an_example_names_the_users_line(tiny_study: BuildStudy, few_digits: Dataset) -> None:
    def fail(index: int) -> None:
        if index == 7:
            raise OSError(f"damaged\n{index}")

    for workers, line in ((0, ""), (2, rf"{__file__}:[0-9]+: .*raise OSError.*: ")):
        run = started(tiny_study(), augmented(few_digits, workers, before=fail))
        with pytest.raises(
            UsageError, match=f"^{line}dataset: example 7 cannot be read: OSError: damaged 7$"
        ) as raised:
            list(train(run))
        assert raised.value.__cause__ is not None
        assert "raise OSError(" in str(raised.value.__cause__) or not workers


def test_a_killed_worker_is_named_in_a_line(tiny_study: BuildStudy, few_digits: Dataset) -> None:
    parent = os.getpid()

    def die(index: int) -> None:
        if index == 7 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    run = started(tiny_study(), augmented(few_digits, 2, before=die))
    with pytest.raises(WorkerDied, match=r"^a loader worker was killed by SIGKILL \(out of memory\?\)$"):
        list(train(run))
    assert loader_workers() == []


@pytest.mark.parametrize("which", range(4))
def test_a_worker_killed_between_intervals_is_named_too(
    which: int, tiny_study: BuildStudy, few_digits: Dataset
) -> None:
    training = train(started(tiny_study(), augmented(few_digits, 2)))
    next(training)
    # Two of the training split and two of the validation split.
    loader_workers()[which].kill()
    with pytest.raises(WorkerDied, match="a loader worker was killed by SIGKILL"):
        list(training)


def test_a_program_ends_although_its_workers_were_not_closed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import torch\n"
        "from hpsearch.loading import Loader, in_order\n"
        "examples = [(torch.zeros(3), 0)] * 20\n"
        "loader = Loader(examples, device=torch.device('cpu'), workers=2, batch_size=5)\n"
        "print(len(list(in_order(loader, torch.device('cpu')))))\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4\n", "")


def test_a_trial_goes_on_after_a_worker_was_killed(tiny_study: BuildStudy, few_digits: Dataset, tmp_path: Path) -> None:
    flag = tmp_path / "killed"

    def die(index: int) -> None:
        if index == 7 and (tmp_path / "0" / "last.pt").exists() and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    study = tiny_study()
    expected = without_seconds(train(started(study, augmented(few_digits, 0))))
    executor = InlineExecutor(study, augmented(few_digits, 2, before=die))
    task = Task(number=0, params={"lr": 0.1}, seed=3, folder=tmp_path / "0", identity="a")
    executor.submit(task)
    events: list[Any] = []
    try:
        while not (events and isinstance(events[-1], Ended)):
            events += executor.events(0.1)
            if isinstance(events[-1], Died):
                assert events[-1].why == "a loader worker was killed by SIGKILL (out of memory?)"
                executor.submit(task)
    finally:
        executor.close()
    assert flag.exists()
    assert [type(event).__name__ for event in events].count("Died") == 1, events[-1]
    assert events[-1].outcome.best_value == max(report.value for report in expected)
    assert events[-1].outcome.intervals == len(expected)


class TestEvaluation:
    def test_is_in_batches_of_the_training_batch_size(self, tiny_study: BuildStudy, few_digits: Dataset) -> None:
        run = started(tiny_study(batch_size=16), augmented(few_digits, 0))
        sizes = [len(targets) for _, targets in in_order(run.validation_split, CPU)]
        assert sizes == [16, 16, 16, 12]

    def test_draws_from_the_seed(self, few_digits: Dataset) -> None:
        split = augmented(few_digits, 0).validation
        first, again, other = (next(in_order(split, CPU, seed=seed))[0] for seed in (1, 1, 2))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_of_a_split_is_that_of_its_examples(self, few_digits: Dataset) -> None:
        assert isinstance(few_digits.validation, Split)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        examples = torch.utils.data.TensorDataset(*few_digits.validation)
        assert evaluate(model, CrossEntropy(), few_digits.validation) == evaluate(model, CrossEntropy(), examples)


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


class TestCall:
    one, two = torch.ones(2), torch.full((2,), 2.0)

    @pytest.mark.parametrize(
        ("inputs", "expected"),
        [
            ({"x": one, "y": two}, "x y"),
            ((one, two), "2"),
            ([one, two], "2"),
            (one, "Tensor"),
            (Pair(one, two), "Pair"),
            (pack_sequence([one]), "PackedSequence"),
        ],
    )
    def test_convention(self, inputs: Any, expected: str) -> None:
        class Net(nn.Module):
            def forward(self, *arguments: Any, **keywords: Any) -> str:
                if keywords:
                    return " ".join(keywords)
                return type(arguments[0]).__name__ if len(arguments) == 1 else str(len(arguments))

        assert call(Net(), inputs) == expected


class Sentences(torch.utils.data.Dataset[Any]):
    """Sequences of 1 to 9 numbers with a random start; the class is whether the last one is even."""

    def __init__(self, count: int = 60) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        numbers = torch.arange(index % 9 + 1) + random.randrange(10)
        return {"id": f"sentence {index}", "numbers": numbers, "even": int(numbers[-1]) % 2 == 0}


def padded(examples: list[dict[str, Any]]) -> tuple[dict[str, Tensor], Tensor]:
    sequences = [example["numbers"] for example in examples]
    inputs = {"numbers": pad_sequence(sequences, batch_first=True), "lengths": torch.tensor(list(map(len, sequences)))}
    return inputs, torch.tensor([int(example["even"]) for example in examples])


def packed(examples: list[dict[str, Any]]) -> tuple[PackedSequence, Tensor]:
    sequences = [example["numbers"] for example in examples]
    return pack_sequence(sequences, enforce_sorted=False), torch.tensor([int(example["even"]) for example in examples])


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.recurrent, self.layer = (
            nn.Embedding(20, 4),
            nn.GRU(4, 4, batch_first=True),
            nn.Linear(4, 2),
        )

    def forward(self, numbers: Any, lengths: Any = None) -> Tensor:
        if isinstance(numbers, PackedSequence):
            embedded: Any = numbers._replace(data=self.embedding(numbers.data))
        else:
            embedded = nn.utils.rnn.pack_padded_sequence(
                self.embedding(numbers), lengths, batch_first=True, enforce_sorted=False
            )
        outputs: Tensor = self.layer(self.recurrent(embedded)[1][0])
        return outputs


def sentences(collate: Any, workers: int = 0) -> Dataset:
    split = Sentences()
    return Dataset(
        train=split,
        validation=split,
        test=split,
        classes=("odd", "even"),
        collate=collate,
        loader_workers=workers,
    )


def recipe(space: Space) -> Recipe:
    return Recipe(model=Reader(), optimizer=SGD(lr=space.float("lr", 0.01, 1.0)), batch_size=16)


class TestCollate:
    @pytest.mark.parametrize("collate", [padded, packed])
    def test_ragged_sequences_train_and_continue(self, collate: Any) -> None:
        study = Study(recipe=recipe, dataset=lambda: sentences(collate), epochs=3)
        whole = without_seconds(train(started(study, sentences(collate))))
        assert len({report.train["loss"] for report in whole}) == 3
        first = started(study, sentences(collate, workers=2))
        assert without_seconds(iter([next(train(first))])) == whole[:1]
        second = started(study, sentences(collate))
        second.load_state_dict(first.state_dict())
        assert without_seconds(train(second)) == whole[1:]

    def test_tuples_and_dicts_without_collate(self) -> None:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.layer = nn.Linear(3, 2)

            def forward(self, left: Tensor, right: Tensor, name: Any = None) -> Tensor:
                assert name is None or len(name) == len(left)
                outputs: Tensor = self.layer(left + right)
                return outputs

        left, right = torch.randn(20, 3), torch.randn(20, 3)
        results = []
        for as_dict in (True, False):
            examples: Any = [
                ({"left": a, "right": b, "name": str(i)} if as_dict else (a, b), i % 2)
                for i, (a, b) in enumerate(zip(left, right, strict=True))
            ]
            data = Dataset(train=examples, validation=examples, test=None, classes=("a", "b"), loader_workers=1)
            study = Study(
                recipe=lambda space: Recipe(model=Net(), optimizer=SGD(lr=space.float("lr", 0.01, 1.0)), batch_size=8),
                dataset=lambda data=data: data,  # type: ignore[misc]
                epochs=2,
            )
            results.append(without_seconds(train(started(study, data))))
        assert results[0] == results[1]

    @pytest.mark.parametrize(
        ("collate", "said"),
        [
            (lambda examples: torch.zeros(3), r"collate must return a pair \(inputs, targets\), got a Tensor"),
            (lambda examples: (1, 2, 3), r"collate must return a pair \(inputs, targets\), got a tuple of 3"),
            (lambda examples: (torch.zeros(3), [1, 2]), "targets of a batch must be one tensor, .* got a list"),
            (lambda examples: (torch.zeros(3), torch.tensor(1)), "one tensor, .* got one without dimensions"),
            (lambda examples: 1 / 0, "dataset: the collate function fails: ZeroDivisionError: division by zero"),
        ],
    )
    def test_a_wrong_batch_is_refused(self, collate: Any, said: str) -> None:
        loader = source(sentences(collate), "train", CPU)
        with pytest.raises(UsageError, match=said):
            take(loader, torch.arange(3), CPU)

    def test_ragged_examples_without_collate_are_refused(self) -> None:
        ragged: Any = [(torch.zeros(length), 0) for length in (2, 3)]
        with pytest.raises(UsageError, match=r"give the data set a collate function.*equal size") as raised:
            take(ragged, torch.arange(2), CPU)
        assert "\n" not in str(raised.value)

    def test_examples_are_fetched_together_where_they_can_be(self) -> None:
        class Together(torch.utils.data.TensorDataset):
            def __getitems__(self, indices: list[int]) -> list[Any]:
                return [(self.tensors[0][index] + 1, self.tensors[1][index]) for index in indices]

        inputs, targets = take(Together(torch.zeros(4, 2), torch.arange(4)), torch.tensor([2, 0]), CPU)
        assert torch.equal(inputs, torch.ones(2, 2))
        assert targets.tolist() == [2, 0]


PHOTOS = """
import os
import time

import torch
from torch import nn

from hpsearch import SGD, Dataset, Recipe, Study, import_torchvision

ImageFolder = import_torchvision("datasets").ImageFolder
transforms = import_torchvision("transforms")


class Slow(ImageFolder):
    def __getitem__(self, index):
        time.sleep(float(os.environ.get("SLOW", "0")))
        return super().__getitem__(index)


def dataset():
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(8, antialias=True),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.4),
            transforms.ToTensor(),
        ]
    )
    train, validation = (Slow(f"images/{part}", transform) for part in ("train", "val"))
    workers = int(os.environ.get("LOADER_WORKERS", "2"))
    return Dataset(
        train=train, validation=validation, test=validation, classes=tuple(train.classes), loader_workers=workers
    )


def recipe(space):
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(3 * 8 * 8, 2))
    return Recipe(model=model, optimizer=SGD(lr=space.float("lr", 0.01, 0.1)), batch_size=4)


study = Study(recipe=recipe, dataset=dataset, epochs=3, n_trials=1, pruner="none")
"""
COMMAND = ("run", "--study", "photos.py", "--workers", "1")


def write_photos(folder: Path) -> None:
    """Write a study of torchvision's ImageFolder with random transforms, and its images."""
    from PIL import Image

    draw = np.random.default_rng(0)
    for part, count in (("train", 20), ("val", 8)):
        for kind in ("cats", "dogs"):
            images = folder / "images" / part / kind
            images.mkdir(parents=True)
            for number in range(count // 2):
                pixels = draw.integers(0, 255, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{number}.png")
    (folder / "photos.py").write_text(PHOTOS)


def history(folder: Path) -> list[str]:
    lines = (folder / "runs" / "photos" / "0" / "history.csv").read_text().splitlines()
    return [line.rpartition(",")[0] for line in lines]  # Without seconds.


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The history of the study without loader workers."""
    histories = []
    for workers in ("0", "1"):
        folder = tmp_path_factory.mktemp("undisturbed")
        write_photos(folder)
        done = hpsearch(*COMMAND[:-1], "0", cwd=folder, LOADER_WORKERS=workers)
        assert done.returncode == 0, done.stderr
        histories.append(history(folder))
    assert histories[0] == histories[1]
    return histories[0]


class TestFolderOfImages:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        write_photos(tmp_path)

    @pytest.mark.parametrize("killed", ["training worker", "loader worker", "supervisor"])
    def test_is_killed_in_mid_epoch_and_continues_exactly(
        self, killed: str, start: Callable[..., Started], tmp_path: Path, undisturbed: list[str]
    ) -> None:
        # Not below `tmp_path`: the path of a socket has 107 characters at most.
        temporary = Path(tempfile.mkdtemp())
        run = start(*COMMAND, SLOW="0.03", TMPDIR=str(temporary))
        wait_for(lambda: (tmp_path / "runs/photos/0/last.pt").exists())
        loaders = [process for process in run.workers() if process.name() == "pt_data_worker"]
        assert len(loaders) == 4
        if killed == "training worker":
            loaders[0].parent().kill()
        elif killed == "loader worker":
            loaders[0].kill()
        else:
            run.process.kill()
        wait_for(lambda: not any(process.is_running() for process in loaders[: 1 if killed == "loader worker" else 4]))
        if killed == "supervisor":
            run.wait()
            done = hpsearch(*COMMAND, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        else:
            assert run.wait() == 0
            who = "a loader worker" if killed == "loader worker" else "its worker"
            assert f"{who} was killed by SIGKILL (out of memory?); it continues" in run.err.read_text()
            assert not list(temporary.glob("pymp-*"))
        shutil.rmtree(temporary)
        assert not any(process.is_running() for process in loaders)
        assert history(tmp_path) == undisturbed

    @pytest.mark.parametrize("workers", ["0", "1"])
    def test_an_interrupt_leaves_no_process_behind(
        self, workers: str, start: Callable[..., Started], tmp_path: Path
    ) -> None:
        run = start(*COMMAND[:-1], workers, SLOW="0.03")
        wait_for(lambda: (tmp_path / "runs/photos/0/last.pt").exists())
        below = run.workers()
        run.interrupt(signal.SIGINT)
        assert run.wait() == 130
        assert "Traceback" not in run.err.read_text()
        wait_for(lambda: not any(process.is_running() for process in below), timeout=5)

    def test_a_damaged_image_is_named_in_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "images/train/dogs/3.png").write_bytes(b"no image")
        done = hpsearch(*COMMAND, cwd=tmp_path)
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert "photos.py:" in last
        assert "return super().__getitem__(index)" in last
        assert "example 13 cannot be read: UnidentifiedImageError: cannot identify image file" in last
        assert "3.png" in last


RAGGED = """
import random

import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from hpsearch import SGD, Dataset, Recipe, Study


class Sentences(torch.utils.data.Dataset):
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return {"numbers": torch.arange(index % 9 + 1) % 10, "even": index % 2, "name": f"sentence {index}"}


def collate(examples):
    sequences = [example["numbers"] for example in examples]
    return pack_sequence(sequences, enforce_sorted=False), torch.tensor([example["even"] for example in examples])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.recurrent, self.layer = nn.Embedding(10, 4), nn.GRU(4, 4), nn.Linear(4, 2)

    def forward(self, numbers):
        return self.layer(self.recurrent(numbers._replace(data=self.embedding(numbers.data)))[1][0])


def dataset():
    split = Sentences()
    return Dataset(
        train=split, validation=split, test=split, classes=("odd", "even"), loader_workers=1, collate=collate
    )


def recipe(space):
    return Recipe(model=Net(), optimizer=SGD(lr=space.float("lr", 0.01, 0.1)), batch_size=16)


study = Study(recipe=recipe, dataset=dataset, epochs=2, n_trials=1)
"""


def test_ragged_sequences_from_check_to_retrain(tmp_path: Path) -> None:
    (tmp_path / "ragged.py").write_text(RAGGED)
    for command in (
        ("check", "--study", "ragged.py"),
        ("run", "--study", "ragged.py", "--workers", "1"),
        ("export", "--study", "ragged.py"),
    ):
        done = hpsearch(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = hpsearch("retrain", "best/ragged-1.json", "--study", "ragged.py", "--seeds", "1", cwd=tmp_path)
    folder = tmp_path / "reports" / "ragged" / "retrain"
    assert (folder / "model.pt").exists()
    assert "for inputs as the study's data set\nfunction gives them" in (folder / "card.md").read_text()
    # There is no exported program, which is said in one line.
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("hpsearch: everything is written except model.pt2: ")

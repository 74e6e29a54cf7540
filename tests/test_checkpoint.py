import math
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from hpsearch import checkpoint
from hpsearch.errors import CheckpointError, FilesUnavailable


def state() -> dict[str, Any]:
    """Return one of everything a checkpoint holds."""
    generator = torch.Generator().manual_seed(0)
    return {
        "model": OrderedDict(
            weight=torch.randn(4, 3, generator=generator),
            images=torch.randn(2, 3, 4, 4, generator=generator).to(memory_format=torch.channels_last),
            transposed=torch.randn(3, 4, generator=generator).T,
        ),
        "dtypes": {
            "float64": torch.randn(3, dtype=torch.float64, generator=generator),
            "float16": torch.randn(3, generator=generator).half(),
            "bfloat16": torch.randn(3, generator=generator).bfloat16(),
            "complex64": torch.randn(3, dtype=torch.complex64, generator=generator),
            "int64": torch.arange(3),
            "uint8": torch.arange(3, dtype=torch.uint8),
            "bool": torch.tensor([True, False]),
        },
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "special": torch.tensor([math.inf, -math.inf, -0.0]),
        "optimizer": {"state": {0: {"step": 3, "none": None}}, "groups": [{"lr": 0.1, "nesterov": False}]},
        "text": "größer, 'quoted'\n",
        "reference": -math.inf,
        "nothing": [],
    }


def same(left: Any, right: Any) -> bool:
    """Return whether two states are equal in structure, types, shapes and bits."""
    if isinstance(left, torch.Tensor):
        if not isinstance(right, torch.Tensor) or (left.dtype, left.shape) != (right.dtype, right.shape):
            return False
        return (
            left.numpy(force=True).tobytes() == right.numpy(force=True).tobytes()
            if (left.dtype != torch.bfloat16)
            else torch.equal(left, right)
        )
    if isinstance(left, dict):
        return (
            isinstance(right, dict) and list(left) == list(right) and all(same(left[key], right[key]) for key in left)
        )
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(same, left, right))
    return type(left) is type(right) and left == right


class TestRoundTrip:
    def test_everything_comes_back_equal(self, tmp_path: Path) -> None:
        checkpoint.save(tmp_path / "a.pt", state())
        assert same(checkpoint.load(tmp_path / "a.pt"), state())
        assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]

    def test_the_memory_layout_comes_back(self, tmp_path: Path) -> None:
        checkpoint.save(tmp_path / "a.pt", state())
        loaded = checkpoint.load(tmp_path / "a.pt")["model"]
        assert {name: tensor.stride() for name, tensor in loaded.items()} == {
            name: tensor.stride() for name, tensor in state()["model"].items()
        }

    def test_the_state_given_is_not_changed(self, tmp_path: Path) -> None:
        given = state()
        checkpoint.save(tmp_path / "a.pt", given)
        assert same(given, state())

    def test_saving_again_replaces(self, tmp_path: Path) -> None:
        for number in (1, 2):
            checkpoint.save(tmp_path / "a.pt", {"number": number})
        assert checkpoint.load(tmp_path / "a.pt") == {"number": 2}

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            checkpoint.load(tmp_path / "a.pt")

    def test_it_loads_without_running_code(self, tmp_path: Path) -> None:
        checkpoint.save(tmp_path / "a.pt", state())
        assert same(torch.load(tmp_path / "a.pt", weights_only=True)["optimizer"], state()["optimizer"])

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Touch:
            def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
                return (os.mkdir, (str(tmp_path / "ran"),))

        torch.save({"x": Touch(), "sha256": ""}, tmp_path / "a.pt")
        with pytest.raises(CheckpointError):
            checkpoint.load(tmp_path / "a.pt")
        assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The bytes of a whole checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "a.pt"
    checkpoint.save(path, state())
    return path.read_bytes()


class TestDamage:
    def test_truncated(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        lengths = {0, 1, 2, 4, 30, *range(64, len(content), len(content) // 40), len(content) - 1}
        for length in sorted(lengths):
            path.write_bytes(content[:length])
            with pytest.raises(CheckpointError, match=f"{path} is damaged or truncated"):
                checkpoint.load(path)

    @pytest.mark.parametrize("mask", [0x01, 0x40, 0xFF])
    def test_one_wrong_byte_is_noticed_or_without_effect(self, content: bytes, tmp_path: Path, mask: int) -> None:
        path = tmp_path / "a.pt"
        refused = 0
        positions = range(mask % 11, len(content), 11)
        for position in positions:
            damaged = bytearray(content)
            damaged[position] ^= mask
            path.write_bytes(damaged)
            try:
                loaded = checkpoint.load(path)
            except CheckpointError:
                refused += 1
            else:
                assert same(loaded, state()), f"byte {position} changed the contents unnoticed"
        assert 0 < refused < len(positions)

    def test_every_byte_of_the_numbers_counts(self, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        weights = torch.randn(8, generator=torch.Generator().manual_seed(0))
        checkpoint.save(path, {"weights": weights})
        content = path.read_bytes()
        start = content.index(weights.numpy().tobytes())
        for position in range(start, start + 32):
            damaged = bytearray(content)
            damaged[position] ^= 0x01
            path.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="contents do not match its digest"):
                checkpoint.load(path)

    def test_zeros_in_place_of_a_block(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "a.pt"
        for start in range(0, len(content), 512):
            block = content[start : start + 512]
            path.write_bytes(content[:start] + bytes(len(block)) + content[start + 512 :])
            try:
                loaded = checkpoint.load(path)
            except CheckpointError:
                continue
            assert same(loaded, state())

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04", b"\x80\x02}q\x00."])
    def test_another_file(self, content: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.pt").write_bytes(content)
        with pytest.raises(CheckpointError):
            checkpoint.load(tmp_path / "a.pt")

    @pytest.mark.parametrize("value", [{"x": 1}, [1], torch.zeros(2)])
    def test_a_torch_file_without_a_digest(self, value: Any, tmp_path: Path) -> None:
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(CheckpointError):
            checkpoint.load(tmp_path / "a.pt")

    def test_load_or_none_says_what_is_wrong(self, tmp_path: Path) -> None:
        said: list[str] = []
        assert checkpoint.load_or_none(tmp_path / "a.pt", said.append) is None
        assert said == []
        checkpoint.save(tmp_path / "a.pt", {"x": 1})
        assert checkpoint.load_or_none(tmp_path / "a.pt", said.append) == {"x": 1}
        assert said == []
        (tmp_path / "a.pt").write_bytes(b"text")
        assert checkpoint.load_or_none(tmp_path / "a.pt", said.append) is None
        assert len(said) == 1
        assert str(tmp_path / "a.pt") in said[0]

    def test_a_path_that_cannot_be_read_is_not_called_damaged(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="directory"):
            checkpoint.load(tmp_path)


class TestDigest:
    @pytest.mark.parametrize(
        ("left", "right"),
        [
            ({"a": 1}, {"a": 2}),
            ({"a": 1}, {"b": 1}),
            ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
            ({"a": 1}, {"a": 1.0}),
            ({"a": 1}, {"a": True}),
            ({"a": 1}, {"a": "1"}),
            ({"1": 1}, {1: 1}),
            ({"a": None}, {"a": []}),
            ([1, [2]], [[1], 2]),
            (torch.zeros(2), torch.zeros(3)),
            (torch.zeros(2, 3), torch.zeros(3, 2)),
            (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
            (torch.zeros(1), torch.full((1,), -0.0)),
            (torch.zeros(0, 2), torch.zeros(2, 0)),
        ],
    )
    def test_differs(self, left: Any, right: Any) -> None:
        assert checkpoint.digest(left) != checkpoint.digest(right)

    def test_is_of_the_contents_and_not_of_the_layout(self) -> None:
        images = torch.randn(2, 3, 4, 4)
        assert checkpoint.digest(images) == checkpoint.digest(images.to(memory_format=torch.channels_last))
        assert checkpoint.digest(images) == checkpoint.digest(images.clone().requires_grad_())

    def test_what_cannot_be_kept_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(TypeError):
            checkpoint.save(tmp_path / "a.pt", {"x": {1, 2}})
        assert list(tmp_path.iterdir()) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("needs the command mount")
    if done.returncode != 0:
        pytest.skip("needs the right to mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


class TestWriteAtomically:
    def test_writes_and_replaces(self, tmp_path: Path) -> None:
        for content in (b"old", b"", b"new" * 1000):
            checkpoint.write_atomically(tmp_path / "file", content)
            assert (tmp_path / "file").read_bytes() == content
            assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_a_reader_keeps_the_old_file(self, tmp_path: Path) -> None:
        checkpoint.write_atomically(tmp_path / "file", b"old")
        with (tmp_path / "file").open("rb") as reader:
            checkpoint.write_atomically(tmp_path / "file", b"new, and longer")
            assert reader.read() == b"old"

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(self, small_disk: Path) -> None:
        path = small_disk / "file"
        checkpoint.write_atomically(path, b"o" * 20_000)
        with pytest.raises(FilesUnavailable, match=f"no space left on the disk of {small_disk}: free some"):
            checkpoint.write_atomically(path, b"n" * 60_000)
        assert path.read_bytes() == b"o" * 20_000
        assert list(small_disk.iterdir()) == [path]
        checkpoint.write_atomically(path, b"n" * 30_000)
        assert path.read_bytes() == b"n" * 30_000

    def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(self, small_disk: Path) -> None:
        path = small_disk / "last.pt"
        checkpoint.save(path, {"weights": torch.ones(10)})
        with pytest.raises(FilesUnavailable):
            checkpoint.save(path, {"weights": torch.zeros(100_000)})
        assert torch.equal(checkpoint.load(path)["weights"], torch.ones(10))
        assert list(small_disk.iterdir()) == [path]

    def test_another_refusal_is_one_line_and_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(FilesUnavailable, match=r"cannot access .*absent/file .No such file or directory."):
            checkpoint.write_atomically(tmp_path / "absent" / "file", b"x")
        (tmp_path / "folder").mkdir()
        with pytest.raises(FilesUnavailable, match="directory"):
            checkpoint.write_atomically(tmp_path / "folder", b"x")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    def test_what_a_killed_writer_left_is_removed_and_what_a_live_one_writes_is_not(self, tmp_path: Path) -> None:
        code = (
            "import os, signal, sys; from pathlib import Path; from hpsearch import checkpoint\n"
            "os.fsync = lambda file: (print('writing', flush=True), signal.pause())\n"
            "checkpoint.write_atomically(Path(sys.argv[1]), b'new')"
        )
        path = tmp_path / "params.json"
        (tmp_path / ".params.json.4711.tmp").touch()
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            (temporary,) = tmp_path.iterdir()
            for _ in range(2):
                checkpoint.remove_orphans(tmp_path)
                checkpoint.write_atomically(path, b"old")
                assert sorted(tmp_path.iterdir()) == [temporary, path]
            writer.kill()
        checkpoint.write_atomically(tmp_path / "other", b"o")
        assert temporary.exists()
        checkpoint.write_atomically(path, b"newer")
        assert not temporary.exists()
        assert path.read_bytes() == b"newer"


class TestCreateExclusively:
    @pytest.mark.parametrize("links", [True, False])
    def test_one_of_many_creates_the_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
        if not links:
            monkeypatch.setattr(Path, "hardlink_to", lambda *paths: os.link("/", "/nowhere/at/all"))
        path = tmp_path / "study.json"
        with ThreadPoolExecutor(8) as pool:
            contents = [str(number).encode() * 1000 for number in range(40)]
            created = list(pool.map(lambda content: checkpoint.create_exclusively(path, content), contents))
        assert sum(created) == 1
        assert path.read_bytes() == contents[created.index(True)]
        assert list(tmp_path.iterdir()) == [path]

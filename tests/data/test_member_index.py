"""The index of a shard finds every pair where it lies, and tells when it is not what it was."""

import tarfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import Damaged, Pair, encode_image, open_shards, pairs_from_tars, write_shards
from data.member_index import index_pairs, load_index, row_type, save_index
from data.shards import index_path
from data.tar_index import index_tar

MakePairs = Callable[[int], list[Pair]]


@pytest.fixture
def shard(tmp_path: Path, make_pairs: MakePairs) -> Path:
    write_shards(tmp_path, "train", make_pairs(5))
    return tmp_path / "train-000000.tar"


def test_every_row_points_at_the_bytes_that_tarfile_finds(shard: Path) -> None:
    raw = shard.read_bytes()
    with tarfile.open(shard) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    for row in load_index(index_path(shard)):
        key = row["key"].decode()
        for role, suffix in (("image", "png"), ("captions", "txt")):
            start, size = int(row[f"{role}_start"]), int(row[f"{role}_size"])
            assert raw[start : start + size] == files[f"{key}.{suffix}"]


def test_an_index_is_read_as_it_was_saved(shard: Path, tmp_path: Path) -> None:
    rows = index_pairs(index_tar(shard)).rows
    save_index(tmp_path / "again.npy", rows)
    assert (load_index(tmp_path / "again.npy") == rows).all()


def test_any_flipped_byte_of_a_pair_is_told(shard: Path, make_pairs: MakePairs) -> None:
    pair = make_pairs(5)[2]
    whole = shard.read_bytes()
    for content in (encode_image(pair.image), "\n".join(pair.captions).encode()):
        start = whole.index(content)
        for place in range(start, start + len(content)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            shard.write_bytes(damaged)
            shards = open_shards(shard.parent, "train")
            assert shards.read(2) == Damaged(key="pair2", reason="altered sample")
            assert shards.read(1).captions == make_pairs(5)[1].captions


def test_a_pair_that_the_index_does_not_have_is_not_taken_for_good(
    shard: Path, make_pairs: MakePairs, tmp_path: Path
) -> None:
    write_shards(tmp_path / "other", "train", make_pairs(6))
    shard.write_bytes((tmp_path / "other" / shard.name).read_bytes())
    *good, last = pairs_from_tars(shard.parent)
    assert [pair.key for pair in good] == [f"pair{number}" for number in range(5)]
    assert last == Damaged(key="pair5", reason="altered sample")


def test_a_pair_says_where_it_lies(shard: Path) -> None:
    assert open_shards(shard.parent, "train").where(3) == ("train-000000.tar", "pair3")


@pytest.mark.parametrize("index", [-1, 5])
def test_there_is_no_pair_outside(shard: Path, index: int) -> None:
    with pytest.raises(IndexError, match=rf"has pairs 0\.\.4, got {index}"):
        open_shards(shard.parent, "train").read(index)


def test_an_index_that_is_not_the_manifests_is_refused(shard: Path) -> None:
    rows = load_index(index_path(shard)).copy()
    rows["image_start"][0] += 512
    save_index(index_path(shard), rows)
    with pytest.raises(ValueError, match=r"train-000000\.index\.npy is not the index that its"):
        open_shards(shard.parent, "train").read(0)
    index_path(shard).unlink()
    with pytest.raises(FileNotFoundError, match=r"train-000000\.index\.npy is missing"):
        open_shards(shard.parent, "train")


@pytest.mark.parametrize(
    "array",
    [np.zeros(3), np.zeros((2, 2), [("key", "S3")]), np.zeros(2, [("key", "S3"), ("crc", "<u4")])],
)
def test_another_table_is_no_index(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="is not an index of a shard"):
        load_index(tmp_path / "a.npy")


def test_an_index_is_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(ValueError, match="is not an index of a shard"):
        load_index(tmp_path / "a.npy")


def test_two_threads_never_parse_a_header_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_index(tmp_path / "a.npy", np.zeros(3, row_type(4)))
    load, at_once, seen = np.lib.format.open_memmap, [], []

    def slow_load(*arguments: Any, **options: Any) -> Any:
        at_once.append(1)
        seen.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()
        return load(*arguments, **options)

    monkeypatch.setattr(np.lib.format, "open_memmap", slow_load)
    with ThreadPoolExecutor(4) as pool:
        assert [len(rows) for rows in pool.map(load_index, [tmp_path / "a.npy"] * 8)] == [3] * 8
    assert seen == [1] * 8

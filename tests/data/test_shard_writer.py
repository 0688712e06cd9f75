"""What writing shards promises: the same bytes again, nothing half done, going on where it was."""

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from data import (
    Damaged,
    Encoding,
    Pair,
    StoredPair,
    decode_image,
    decoded,
    encode_image,
    open_shards,
    pairs_from_tars,
    write_shards,
)
from data import shard_writer as writer

MakePairs = Callable[[int], list[Pair]]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def stopping(pairs: list[Pair], after: int) -> Iterator[Pair]:
    yield from pairs[:after]
    raise KeyboardInterrupt


def test_the_same_pairs_give_the_same_bytes_on_any_number_of_workers(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    for name, workers in (("a", 1), ("b", 1), ("c", 3)):
        write_shards(tmp_path / name, "train", make_pairs(9), per_shard=4, workers=workers)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_the_manifest_counts_and_hashes_and_keeps_other_splits(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    labelled = StoredPair(
        key="cat", image=encode_image(make_pairs(1)[0].image), captions=("a cat",), label="cat"
    )
    samples = [*make_pairs(3), labelled, Damaged(key="x", reason="no image")]
    write_shards(tmp_path, "train", samples, build={"source": "here"}, licence="CC0")
    manifest = write_shards(tmp_path, "test", make_pairs(2), about="drawn for a test")
    assert manifest == json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["source"], manifest["licence"]) == ("drawn for a test", "CC0")
    train = manifest["splits"]["train"]
    assert train == {
        "samples": 4,
        "captions": 7,
        "skipped": {"no image": 1},
        "fields": ["cls", "png", "txt"],
        "statistics": {
            "words": 3 * (2 + 5) + 2,
            "words_min": 2,
            "words_max": 5,
            "per_image_min": 1,
            "per_image_max": 2,
        },
        "build": {
            "source": "here",
            "image_format": "keep",
            "size": None,
            "fit": "shorter",
            "per_shard": 2_000,
        },
        "read": 5,
        "last": "x",
        "complete": True,
    }
    for name, samples in (("train-000000", 4), ("test-000000", 2)):
        raw = (tmp_path / f"{name}.tar").read_bytes()
        index = (tmp_path / f"{name}.index.npy").read_bytes()
        assert manifest["shards"][f"{name}.tar"] == {
            "samples": samples,
            "bytes": len(raw),
            "sha256": hashlib.sha256(raw).hexdigest(),
            "index_sha256": hashlib.sha256(index).hexdigest(),
        }


def test_webdataset_reads_what_is_written(tmp_path: Path, make_pairs: MakePairs) -> None:
    import webdataset

    pairs = make_pairs(3)
    odd = Pair(key="dogs/a.v2", image=pairs[0].image, captions=("odd",))
    write_shards(tmp_path, "train", [*pairs, odd])
    read = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == ["pair0", "pair1", "pair2", "dogs%2Fa%2Ev2"]
    assert [sample["txt"].decode().split("\n")[0] for sample in read][-1] == "odd"


def test_labels_come_back(tmp_path: Path, make_pairs: MakePairs) -> None:
    image = encode_image(make_pairs(1)[0].image)
    pairs = [
        StoredPair(key=str(n), image=image, captions=("a",), label=label)
        for n, label in enumerate(("cat", None, "7"))
    ]
    write_shards(tmp_path, "train", pairs)
    shards = open_shards(tmp_path, "train")
    assert [shards.read(n) for n in range(3)] == pairs


@pytest.mark.parametrize("image_format", ["jpg", "png", "webp"])
def test_a_file_is_kept_byte_by_byte_unless_it_is_resized(
    tmp_path: Path, make_pairs: MakePairs, image_format: str
) -> None:
    raw = encode_image(make_pairs(1)[0].image, image_format)
    pair = StoredPair(key="a", image=raw, captions=("a",))
    write_shards(tmp_path / "kept", "train", [pair])
    write_shards(tmp_path / "same", "train", [pair], encoding=Encoding(size=8))
    write_shards(tmp_path / "small", "train", [pair], encoding=Encoding(size=4))
    assert open_shards(tmp_path / "kept", "train").read(0).image == raw
    assert open_shards(tmp_path / "same", "train").read(0).image == raw
    small = open_shards(tmp_path / "small", "train")
    assert decoded(small.read(0)).image.shape == (4, 4, 3)
    assert contents(tmp_path / "small").keys() == contents(tmp_path / "kept").keys()
    fields = json.loads((tmp_path / "small/manifest.json").read_text())["splits"]["train"]["fields"]
    assert fields == sorted([image_format, "txt"])


@pytest.mark.parametrize(
    ("fit", "shape"),
    [
        ("crop", (10, 10, 3)),
        ("squash", (10, 10, 3)),
        ("shorter", (10, 20, 3)),
        ("longer", (5, 10, 3)),
    ],
)
def test_each_fit_gives_its_proportions(
    tmp_path: Path, fit: str, shape: tuple[int, int, int]
) -> None:
    wide = Pair(key="wide", image=np.zeros((20, 40, 3), np.uint8), captions=("wide",))
    write_shards(tmp_path, "train", [wide], encoding=Encoding(size=10, fit=fit, format="jpg"))
    assert decode_image(open_shards(tmp_path, "train").read(0).image).shape == shape


@pytest.mark.parametrize("after", range(11))
def test_a_build_that_was_interrupted_goes_on_to_the_same_bytes(
    tmp_path: Path, make_pairs: MakePairs, after: int
) -> None:
    pairs: list[Pair | Damaged] = [*make_pairs(10)]
    pairs.insert(4, Damaged(key="x", reason="no image"))
    write_shards(tmp_path / "whole", "train", pairs, per_shard=3)
    out = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        write_shards(out, "train", stopping(pairs, after), per_shard=3)
    if out.exists():
        with pytest.raises(ValueError, match="a part of split 'train' only: run its building"):
            open_shards(out, "train")
    write_shards(out, "train", pairs, per_shard=3)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_complete_is_left_as_it_is(tmp_path: Path, make_pairs: MakePairs) -> None:
    write_shards(tmp_path, "train", make_pairs(2))
    before = contents(tmp_path)
    write_shards(tmp_path, "train", make_pairs(5))
    assert contents(tmp_path) == before


def test_a_split_that_nobody_calls_unfinished_is_complete(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    write_shards(tmp_path, "train", make_pairs(2))
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    split = manifest["splits"]["train"]
    manifest["splits"]["train"] = {key: split[key] for key in ("samples", "captions", "skipped")}
    path.write_text(json.dumps(manifest))
    before = contents(tmp_path)
    write_shards(tmp_path, "train", make_pairs(5))
    assert contents(tmp_path) == before


def test_another_build_of_a_split_is_refused_by_what_differs(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    write_shards(tmp_path, "train", make_pairs(2), build={"source": "a"})
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="was built with source='a', not 'b'"):
        write_shards(tmp_path, "train", make_pairs(2), build={"source": "b"})
    with pytest.raises(ValueError, match="was built with size=None, not 4"):
        write_shards(tmp_path, "train", [], encoding=Encoding(size=4), build={"source": "a"})
    assert contents(tmp_path) == before


def test_shards_of_another_making_are_not_written_over(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    write_shards(tmp_path, "train", make_pairs(1))
    (tmp_path / "manifest.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="already has shards of split 'train', of another making"):
        write_shards(tmp_path, "train", make_pairs(2))
    assert contents(tmp_path) == before


@pytest.mark.parametrize("fails_at", ["_write_tar", "save_index", "write_manifest"])
def test_a_full_disk_leaves_the_finished_shards_good_and_nothing_half(
    tmp_path: Path, make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    pairs = make_pairs(9)
    real = getattr(writer, fails_at)
    calls = iter(range(-1 if fails_at == "write_manifest" else 0, 99))  # it is written first, too

    def full(*arguments: object) -> object:
        if next(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(writer, fails_at, full)
        with pytest.raises(OSError, match="No space left"):
            write_shards(tmp_path / "full", "train", pairs, per_shard=3)
    left = contents(tmp_path / "full")
    manifest = json.loads(left["manifest.json"])
    assert sorted(manifest["shards"]) == ["train-000000.tar", "train-000001.tar"]
    for name, entry in manifest["shards"].items():
        assert hashlib.sha256(left[name]).hexdigest() == entry["sha256"]
    assert not [name for name in left if name.endswith(".tmp")]
    write_shards(tmp_path / "full", "train", pairs, per_shard=3)
    write_shards(tmp_path / "whole", "train", pairs, per_shard=3)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


@pytest.mark.parametrize("fails_at", ["_write_tar", "save_index"])
def test_a_full_disk_at_the_first_shard_loses_no_pair(
    tmp_path: Path, make_pairs: MakePairs, monkeypatch: pytest.MonkeyPatch, fails_at: str
) -> None:
    pairs: list[Pair | Damaged] = [Damaged(key="x", reason="no image"), *make_pairs(5)]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(writer, fails_at, full)
        with pytest.raises(OSError, match="No space left"):
            write_shards(tmp_path / "full", "train", pairs, per_shard=3)
    write_shards(tmp_path / "full", "train", pairs, per_shard=3)
    write_shards(tmp_path / "whole", "train", pairs, per_shard=3)
    assert contents(tmp_path / "full") == contents(tmp_path / "whole")


def test_an_image_that_the_format_cannot_hold_is_left_out_and_counted(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    long = Pair(key="long", image=np.zeros((900, 16_400, 3), np.uint8), captions=("long",))
    manifest = write_shards(
        tmp_path, "train", [long, *make_pairs(2)], encoding=Encoding(format="webp")
    )
    split = manifest["splits"]["train"]
    assert (split["samples"], split["skipped"]) == (2, {"image too large": 1})


def interrupted(folder: Path, pairs: list[Pair], after: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_shards(folder, "train", stopping(pairs, after), per_shard=3)


def test_a_build_does_not_go_on_over_a_shard_that_was_lost_since(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    pairs = make_pairs(10)
    interrupted(tmp_path, pairs, 8)
    (tmp_path / "train-000000.tar").unlink()
    before = contents(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train-000000\.tar is missing"):
        write_shards(tmp_path, "train", pairs, per_shard=3)
    assert contents(tmp_path) == before


def test_a_build_does_not_go_on_from_other_pairs(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(10)
    interrupted(tmp_path, pairs, 8)
    before = contents(tmp_path)
    for changed in (pairs[1:], pairs[:2]):
        with pytest.raises(ValueError, match=r"has changed .* pair 2 was 'pair2', it is 'pair"):
            write_shards(tmp_path, "train", changed, per_shard=3)
    assert contents(tmp_path) == before


def test_two_builds_do_not_write_into_one_folder(tmp_path: Path, make_pairs: MakePairs) -> None:
    def meanwhile() -> Iterator[Pair]:
        with pytest.raises(ValueError, match="is being written by another build"):
            write_shards(tmp_path, "test", make_pairs(2))
        yield from make_pairs(3)

    write_shards(tmp_path, "train", meanwhile())
    manifest = write_shards(tmp_path, "test", make_pairs(2))
    assert sorted(manifest["splits"]) == ["test", "train"]


def test_tars_that_a_build_did_not_write_stay(tmp_path: Path, make_pairs: MakePairs) -> None:
    pairs = make_pairs(10)
    for split, after in (("train", 8), ("other", 10)):
        with pytest.raises(KeyboardInterrupt):
            write_shards(tmp_path, split, stopping(pairs, after), per_shard=3)
    write_shards(tmp_path, "other", pairs, per_shard=3)
    for name in ("train-000777.tar", "other-000777.tar"):
        (tmp_path / name).write_bytes(b"of somebody else")
    write_shards(tmp_path, "train", pairs, per_shard=3)
    write_shards(tmp_path, "other", pairs, per_shard=3)
    assert {"train-000777.tar", "other-000777.tar"} <= contents(tmp_path).keys()


def test_what_is_told_of_a_complete_split_is_entered(tmp_path: Path, make_pairs: MakePairs) -> None:
    write_shards(tmp_path, "train", make_pairs(2))
    write_shards(tmp_path, "train", make_pairs(2), about="drawn", licence="CC0")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["source"], manifest["licence"]) == ("drawn", "CC0")


def test_two_names_never_become_one_key(tmp_path: Path, make_pairs: MakePairs) -> None:
    image = make_pairs(1)[0].image
    names = ["a b", "a%20b", "a.b", "a%2Eb", "ä"]
    pairs = [Pair(key=name, image=image, captions=("a",)) for name in names]
    assert write_shards(tmp_path, "train", pairs)["splits"]["train"]["samples"] == len(names)
    assert [pair.key for pair in pairs_from_tars(tmp_path)] == names


def test_shards_are_rebuilt_without_what_their_index_and_manifest_tell(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    write_shards(tmp_path / "a", "train", make_pairs(9), per_shard=3)
    shard = tmp_path / "a/train-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"picture 1", b"picture 7"))
    (tmp_path / "a/train-000002.tar").unlink()
    manifest = write_shards(tmp_path / "b", "train", pairs_from_tars(tmp_path / "a"))
    train = manifest["splits"]["train"]
    assert train["samples"] == 5
    assert train["skipped"] == {"altered sample": 1, "missing shard": 3}


def test_a_part_of_a_split_is_not_rebuilt(tmp_path: Path, make_pairs: MakePairs) -> None:
    interrupted(tmp_path, make_pairs(10), 8)
    for split in (None, "train"):
        with pytest.raises(ValueError, match="a part of split 'train' only"):
            pairs_from_tars(tmp_path, split)


def test_a_key_that_comes_twice_is_counted_and_the_first_stays(
    tmp_path: Path, make_pairs: MakePairs
) -> None:
    first, second = make_pairs(2)
    again = Pair(key=first.key, image=second.image, captions=("again",))
    manifest = write_shards(tmp_path, "train", [first, second, again], per_shard=1)
    assert manifest["splits"]["train"]["skipped"] == {"key twice": 1}
    assert len(open_shards(tmp_path, "train")) == 2


def test_what_cannot_be_written_is_refused(tmp_path: Path, make_pairs: MakePairs) -> None:
    with pytest.raises(ValueError, match="has no pair to write, skipped: 1 no image"):
        write_shards(tmp_path, "train", [Damaged(key="a", reason="no image")])
    with pytest.raises(ValueError, match=r"got '\.\./train'"):
        write_shards(tmp_path, "../train", [])
    with pytest.raises(ValueError, match="per_shard and workers must be at least 1, got 0, 1"):
        write_shards(tmp_path, "train", make_pairs(1), per_shard=0)
    with pytest.raises(ValueError, match="size must be at least 1, got 0"):
        Encoding(size=0)
    assert not list(tmp_path.iterdir())

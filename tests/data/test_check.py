"""A folder of shards is trusted whole, or every defect is found where it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data import Counts, find_defects, write_shards
from data.scenes import scene_pairs


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven pairs of five captions in three shards, and two pairs of another split."""
    write_shards(tmp_path, "train", scene_pairs("train", 7, 16), per_shard=3)
    write_shards(tmp_path, "test", scene_pairs("test", 2, 16))
    return tmp_path


def found(folder: Path) -> list[tuple[str, str, str]]:
    return [(d.shard, d.key, d.reason) for d in find_defects(folder, Counts())]


def test_what_was_written_is_trusted_and_counted(folder: Path) -> None:
    good = Counts()
    assert list(find_defects(folder, good)) == []
    assert good.samples == {"train": 7, "test": 2} and good.captions == {"train": 35, "test": 10}


def test_a_folder_without_a_manifest_is_checked_by_itself(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    assert found(folder) == []


def flip(path: Path, find: bytes) -> None:
    whole = bytearray(path.read_bytes())
    whole[whole.index(find) + len(find) // 2] ^= 1
    path.write_bytes(whole)


@pytest.mark.parametrize(
    ("damage", "defects"),
    [
        (
            lambda f: flip(f / "train-000001.tar", b" ground"),
            [("train-000001.tar", "train-0000003", "altered sample")],
        ),
        (
            lambda f: (f / "train-000001.tar").unlink(),
            [("train-000001.tar", "", "missing shard, 3 samples")],
        ),
        (
            lambda f: (f / "test-000000.tar").unlink(),
            [("test-000000.tar", "", "missing shard, 2 samples")],
        ),
        (
            lambda f: shutil.copy(f / "train-000002.tar", f / "train-000009.tar"),
            [
                ("train-000009.tar", "train-0000006", "key twice"),
                ("train-000009.tar", "", "not in the manifest"),
            ],
        ),
        (
            lambda f: flip(f / "train-000000.tar", b"IHDR"),
            [("train-000000.tar", "train-0000000", "altered sample")],
        ),
        (
            lambda f: (f / "test-000000.tar").write_bytes(
                (f / "test-000000.tar").read_bytes() + bytes(512)
            ),
            [("test-000000.tar", "", "altered shard")],
        ),
        (
            lambda f: flip(f / "test-000000.index.npy", b"descr"),
            [("test-000000.tar", "", "altered index")],
        ),
        (
            lambda f: (f / "test-000000.index.npy").unlink(),
            [("test-000000.tar", "", "missing index")],
        ),
    ],
)
def test_every_defect_is_listed_once_and_where_it_is(
    folder: Path, damage: Callable[[Path], object], defects: list[tuple[str, str, str]]
) -> None:
    damage(folder)
    assert found(folder) == defects


def test_a_shard_that_was_cut_is_a_defect(folder: Path) -> None:
    path = folder / "train-000001.tar"
    path.write_bytes(path.read_bytes()[:-12_000])
    assert [place[:2] for place in found(folder)] == [("train-000001.tar", "")]


def test_a_manifest_that_counts_otherwise_is_a_defect(folder: Path) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["splits"]["test"]["captions"] = 11
    path.write_text(json.dumps(manifest))
    assert found(folder) == [
        ("manifest.json", "", "the manifest says 11 captions of test, 10 are good")
    ]


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no shards named SPLIT-000000\.tar"):
        list(find_defects(tmp_path, Counts()))
    with pytest.raises(FileNotFoundError, match="is not a local folder"):
        list(find_defects(tmp_path / "none", Counts()))

"""What a view promises: the pairs that were chosen, of what it was made of, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data import (
    Counts,
    Pair,
    decoded,
    find_defects,
    open_source,
    write_shards,
    write_view,
)
from data.manifest import NAME, sha256_of

MakePairs = Callable[[int], list[Pair]]
ROWS = np.array([1, 3, 4, 7])


@pytest.fixture
def view(tmp_path: Path, make_pairs: MakePairs) -> Path:
    """Four of the ten pairs of two folders, six of one and four of the other."""
    of = [tmp_path / "shards/a", tmp_path / "shards/b"]
    for folder, pairs in zip(of, (make_pairs(10)[:6], make_pairs(10)[6:]), strict=True):
        write_shards(folder, "train", pairs, per_shard=4)
    source = open_source(of, "train", image_size=8)
    rules = [{"rule": "exact duplicates", "removed": 6, "left": 4}]
    write_view(tmp_path / "view", "train", of, source, ROWS, rules)
    return tmp_path / "view"


def rewrite(view: Path, **changes: Any) -> None:
    manifest = json.loads((view / NAME).read_text())
    manifest["view"]["train"] |= changes
    (view / NAME).write_text(json.dumps(manifest))


def rewrite_rows(view: Path, rows: np.ndarray) -> None:
    np.save(view / "train.rows.npy", rows)
    rewrite(view, rows_sha256=sha256_of(view / "train.rows.npy"), samples=len(rows))


def test_it_reads_as_the_source_does_at_its_rows(view: Path) -> None:
    source = open_source([view.parent / "shards" / name for name in "ab"], "train", image_size=8)
    chosen = open_source([view], "train", image_size=8)
    assert (chosen.name, len(chosen), chosen.counts) == ("view/train", 4, (4,))
    for place, row in enumerate(ROWS.tolist()):
        one, other = decoded(chosen.read(place)), decoded(source.read(row))
        assert isinstance(one, Pair) and isinstance(other, Pair)
        assert (one.key, one.captions) == (other.key, other.captions)
        assert one.key == f"{'ab'[row >= 6]}/pair{row}"
        assert (one.image == other.image).all()
        assert chosen.captions_of(place) == source.captions_of(row)
    assert chosen.fingerprint != source.fingerprint


def test_no_pair_is_copied_and_what_was_done_is_said(view: Path) -> None:
    assert sorted(path.name for path in view.iterdir()) == [NAME, "train.rows.npy"]
    said = json.loads((view / NAME).read_text())["view"]["train"]
    assert said["of"] == ["../shards/a", "../shards/b"]
    assert said["rules"] == [{"rule": "exact duplicates", "removed": 6, "left": 4}]


def test_view_and_source_can_be_moved_together(view: Path, tmp_path: Path) -> None:
    before = open_source([view], "train", image_size=8).fingerprint
    (tmp_path / "else").mkdir()
    for name in ("view", "shards"):
        shutil.move(tmp_path / name, tmp_path / "else" / name)
    moved = open_source([tmp_path / "else/view"], "train", image_size=8)
    assert moved.fingerprint == before


def test_a_view_of_a_view_chooses_among_its_pairs(view: Path, tmp_path: Path) -> None:
    source = open_source([view], "train", image_size=8)
    write_view(tmp_path / "again", "train", [view], source, np.array([0, 3]), [])
    chosen = open_source([tmp_path / "again"], "train", image_size=8)
    assert [decoded(chosen.read(place)).key for place in range(2)] == ["a/pair1", "b/pair7"]


def test_a_folder_and_a_view_are_read_together(view: Path, tmp_path: Path) -> None:
    source = open_source([tmp_path / "shards/a", view], "train", image_size=8)
    assert source.counts == (6, 4)


def test_a_second_split_joins_the_first(view: Path, make_pairs: MakePairs) -> None:
    of = view.parent / "shards/a"
    write_shards(of, "test", make_pairs(3))
    source = open_source([of], "test", image_size=8)
    write_view(view, "test", [of], source, np.array([2]), [])
    assert len(open_source([view], "test", image_size=8)) == 1
    assert len(open_source([view], "train", image_size=8)) == 4


def test_what_is_damaged_in_the_source_does_not_count_against_the_view(
    view: Path, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / "shards" / name / NAME).unlink()  # each shard is now scanned
    tar = tmp_path / "shards/b/train-000000.tar"
    tar.write_bytes(tar.read_bytes()[:5_000])  # and this one has lost its end
    of = [tmp_path / "shards" / name for name in "ab"]
    source = open_source(of, "train", image_size=8, max_skipped=1.0)
    assert source.skipped["broken shard"]
    write_view(tmp_path / "new", "train", of, source, np.array([0]), [])
    assert open_source([tmp_path / "new"], "train", image_size=8, max_skipped=0.0).skipped == {}


def test_a_source_that_has_changed_is_refused(view: Path, make_pairs: MakePairs) -> None:
    shutil.rmtree(view.parent / "shards/b")
    with pytest.raises(
        FileNotFoundError, match=r"view .*view cannot be opened: .*b is not a local"
    ):
        open_source([view], "train", image_size=8)
    write_shards(view.parent / "shards/b", "train", make_pairs(4))
    with pytest.raises(ValueError, match=r"was made of another a/train\+b/train"):
        open_source([view], "train", image_size=8)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([0, 10], "must have rows of 0..9, each once and in order"),
        ([-1, 0], "must have rows of 0..9"),
        ([3, 3], "must have rows of 0..9"),
        ([4, 3, 5], "must have rows of 0..9"),
        ([0.0, 1.0], "is not a list of 2 rows"),
        ([[0], [1]], "is not a list of 2 rows"),
    ],
)
def test_rows_that_cannot_be_are_refused(view: Path, rows: list[Any], sentence: str) -> None:
    rewrite_rows(view, np.array(rows))
    with pytest.raises(ValueError, match=sentence):
        open_source([view], "train", image_size=8)


def test_rows_that_were_altered_are_refused(view: Path) -> None:
    path = view / "train.rows.npy"
    np.save(path, ROWS + 1)
    with pytest.raises(ValueError, match=r"train\.rows\.npy is not the file that its manifest"):
        open_source([view], "train", image_size=8)
    path.write_bytes(b"no array")
    rewrite(view, rows_sha256=sha256_of(path))
    with pytest.raises(ValueError, match="is not a list of rows"):
        open_source([view], "train", image_size=8)
    np.save(path, np.array([1, "a"], dtype=object))  # a pickle: it is not even looked into
    rewrite(view, rows_sha256=sha256_of(path))
    with pytest.raises(ValueError, match="is not a list of rows"):
        open_source([view], "train", image_size=8)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        open_source([view], "train", image_size=8)


@pytest.mark.parametrize(
    "changes",
    [{"of": []}, {"of": "shards"}, {"of": [1]}, {"samples": 0}, {"samples": True}, {"rules": 1}],
)
def test_a_manifest_of_a_view_that_cannot_be_is_refused(
    view: Path, changes: dict[str, Any]
) -> None:
    rewrite(view, **changes)
    with pytest.raises(ValueError, match="is not a manifest of a view"):
        open_source([view], "train", image_size=8)


def test_a_split_that_is_not_there_is_refused(view: Path) -> None:
    with pytest.raises(FileNotFoundError, match="has no split 'test', it has train"):
        open_source([view], "test", image_size=8)


def test_views_that_go_round_in_a_circle_are_refused(view: Path) -> None:
    rewrite(view, of=["."])
    with pytest.raises(ValueError, match="is a view within more than 8 others"):
        open_source([view], "train", image_size=8)


def test_shards_are_checked_where_they_are(view: Path) -> None:
    with pytest.raises(ValueError, match=r"is a view and has no shards: check .*/a, .*/b$"):
        list(find_defects(view, Counts()))


def test_nothing_is_written_over(view: Path, make_pairs: MakePairs) -> None:
    of = view.parent / "shards/a"
    source = open_source([of], "train", image_size=8)
    with pytest.raises(ValueError, match="already is a view with split 'train'"):
        write_view(view, "train", [of], source, ROWS, [])
    with pytest.raises(ValueError, match="holds shards: a view needs a folder of its own"):
        write_view(of, "new", [of], source, ROWS, [])
    with pytest.raises(ValueError, match="is a view and has no shards of its own"):
        write_shards(view, "more", make_pairs(2))
    with pytest.raises(ValueError, match="must have at least 1 pair, got 0"):
        write_view(view, "none", [of], source, ROWS[:0], [])
    with pytest.raises(ValueError, match=r"digits, _ and - only, got '\.\./out'"):
        write_view(view, "../out", [of], source, ROWS, [])

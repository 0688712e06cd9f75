"""What the one door to pairs promises."""

from collections.abc import Callable
from pathlib import Path

import pytest

from data import Pair, apart, in_memory, open_source, write_shards


def test_scenes_and_folders_come_through_the_same_door(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    write_shards(tmp_path, "train", make_pairs(3))
    for source in (("scenes",), (str(tmp_path),)):
        pairs = in_memory(open_source(source, "train", image_size=16, count=2), 16)
        assert pairs.images.shape == (2, 3, 16, 16)
        assert len(pairs.captions) == len(pairs.keys) == len(pairs) == 2


def test_scenes_need_a_number() -> None:
    with pytest.raises(ValueError, match="count must be a number, got None"):
        open_source(("scenes",), "train", image_size=16)


def test_what_is_set_apart_is_not_in_the_rest() -> None:
    source = open_source(("scenes",), "train", image_size=12, count=10)
    rest, those = apart(source, 3)
    keys = [[each.read(i).key for i in range(len(each))] for each in (rest, those)]
    assert [len(each) for each in keys] == [7, 3]
    assert sorted(keys[0] + keys[1]) == sorted(source.keys)


@pytest.mark.parametrize("number", [0, 10])
def test_nothing_or_all_cannot_be_set_apart(number: int) -> None:
    source = open_source(("scenes",), "train", image_size=12, count=10)
    with pytest.raises(ValueError, match=rf"at least 1 and not all can be set apart, got {number}"):
        apart(source, number)

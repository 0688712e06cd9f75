"""What is kept is what would be read again."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data import Batches, Framing, Pair, open_shards, write_shards
from data.kept import MOST_BYTES, Kept, fits


@pytest.fixture
def shards(tmp_path: Path, make_pairs: Callable[[int], list[Pair]]) -> Path:
    write_shards(tmp_path, "train", make_pairs(6))
    return tmp_path


def test_batches_are_the_same_from_kept_pairs(shards: Path) -> None:
    source = open_shards(shards, "train")
    framing = Framing(size=4, mirrored=0.5)
    for step in (0, 1, 2, 0):
        kept = Batches(Kept(source, 4), framing, batch_size=4, seed=0).at(step)
        again = Batches(source, framing, batch_size=4, seed=0).at(step)
        assert torch.equal(kept.images, again.images) and kept.captions == again.captions


def test_a_pair_is_read_once(shards: Path) -> None:
    kept = Kept(open_shards(shards, "train"), 4)
    before = kept.read(2)
    (shards / "train-000000.tar").write_bytes(b"")
    assert kept.read(2) is before and np.shape(before.image) == (4, 4, 3)
    assert kept.read(3).reason == "altered sample"


def test_only_a_small_set_fits(shards: Path) -> None:
    source = open_shards(shards, "train")
    most = int((MOST_BYTES / 3 / len(source)) ** 0.5)
    assert fits(source, most) and not fits(source, most + 1)

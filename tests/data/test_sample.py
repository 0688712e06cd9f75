"""What pairs in memory promise."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data import Damaged, Pair, pairs_from


def test_the_fingerprint_sees_pixels_captions_and_keys(
    make_pairs: Callable[[int], list[Pair]],
) -> None:
    pair = make_pairs(1)[0]
    others = [
        replace(pair, image=pair.image ^ 1),
        replace(pair, captions=("another",)),
        replace(pair, key="another"),
    ]
    prints = {pairs_from("one", [p], skipped={}).fingerprint for p in [pair, *others, pair]}
    assert len(prints) == 4


def test_what_was_skipped_before_is_added_to(make_pairs: Callable[[int], list[Pair]]) -> None:
    samples = [*make_pairs(1), Damaged(key="a", reason="no image")]
    assert pairs_from("two", samples, skipped={"no image": 2}).skipped == {"no image": 3}


def test_images_of_two_sizes_are_refused(make_pairs: Callable[[int], list[Pair]]) -> None:
    small = Pair(key="small", image=np.zeros((4, 4, 3), np.uint8), captions=("small",))
    with pytest.raises(ValueError, match=r"must be of one size, \(8, 8\), got \(4, 4\)"):
        pairs_from("mixed", [*make_pairs(1), small], skipped={})

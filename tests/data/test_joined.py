"""Several sources as one, and parts of a source, read the pairs that they are made of."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from data import Pair, Pairs, pairs_from
from data.joined import Chosen, Joined, first

MakePairs = Callable[[int], list[Pair]]


def named(name: str, pairs: list[Pair]) -> Pairs:
    return pairs_from(name, [replace(p, key=f"{name}{p.key}") for p in pairs], skipped={"bad": 1})


@pytest.fixture
def joined(make_pairs: MakePairs) -> Joined:
    return Joined([named("a", make_pairs(3)), named("b", make_pairs(4))], ["x/", "y/"])


def test_sources_follow_each_other_and_their_keys_stay_apart(joined: Joined) -> None:
    assert (len(joined), joined.counts, joined.name) == (7, (3, 4), "a+b")
    keys = [joined.read(index).key for index in range(7)]
    assert keys == [f"x/apair{n}" for n in range(3)] + [f"y/bpair{n}" for n in range(4)]
    assert joined.captions_of(4) == joined.read(4).captions == joined.sources[1].captions[1]
    assert joined.skipped == {"bad": 2}


def test_chosen_pairs_are_those_and_count_by_set(joined: Joined) -> None:
    chosen = Chosen(joined, np.array([0, 2, 3, 4, 6]), "some")
    assert (len(chosen), chosen.counts) == (5, (2, 3))
    assert [chosen.read(n).key for n in (1, 4)] == ["x/apair2", "y/bpair3"]
    assert chosen.captions_of(4) == joined.captions_of(6)


def test_fingerprints_tell_other_pairs_and_another_choice(joined: Joined) -> None:
    a, b = joined.sources
    prints = {
        source.fingerprint
        for source in (
            joined,
            Joined([b, a], ["y/", "x/"]),
            Chosen(joined, np.array([0, 1]), "some"),
            Chosen(joined, np.array([0, 2]), "some"),
        )
    }
    assert len(prints) == 4


def test_the_first_pairs_are_those_of_each_set_in_proportion(joined: Joined) -> None:
    assert first(joined, 7) is joined
    some = first(joined, 4)
    assert some.counts == (1, 3)  # of 3 and 4
    assert [some.read(n).key for n in range(4)] == [joined.read(n).key for n in (0, 3, 4, 5)]
    with pytest.raises(ValueError, match=r"a\+b has 7 pairs, 8 were asked for"):
        first(joined, 8)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        first(joined, 0)

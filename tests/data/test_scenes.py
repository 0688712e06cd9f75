"""Scenes: two policies say the same things in opposite orders, and factors are what is drawn."""

import pytest

from data.scenes import (
    COLOURS,
    GROUNDS,
    NAMED_AT,
    PLACES,
    POLICIES,
    SHAPES,
    SIZES,
    factors,
    load_scenes,
    scene,
)

WORDS = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": tuple(SIZES),
    "place": PLACES,
    "ground": GROUNDS,
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("factor", WORDS)
def test_a_factor_is_first_named_where_the_policy_says(policy: str, factor: str) -> None:
    for index in range(20):
        said = POLICIES[policy](scene("train", index))
        names = [any(f" {word}" in f" {caption}" for word in WORDS[factor]) for caption in said]
        assert names.index(True) + 1 == NAMED_AT[policy][factor]


def test_the_policies_differ_in_what_is_said_first_and_not_in_what_is_said() -> None:
    for index in range(20):
        fullest = [sorted(say(scene("train", index))[-1].split()) for say in POLICIES.values()]
        plain = [[word for word in words if word not in ("on", "with")] for words in fullest]
        assert plain[0] == plain[1]


def test_the_policies_show_the_same_images() -> None:
    shown = [load_scenes("train", 3, 36, policy).images for policy in POLICIES]
    assert bool((shown[0] == shown[1]).all())


def test_factors_are_those_of_the_objects() -> None:
    for index in range(20):
        drawn = scene("judge", index)
        facts = factors(drawn)
        for name in ("shape", "colour", "size"):
            there = {
                word for word, is_there in zip(WORDS[name], facts[name], strict=True) if is_there
            }
            assert there == {getattr(thing, name) for thing in drawn.objects}
        assert facts["count"].index(True) + 1 == len(drawn.objects)
        assert sum(facts["place"]) == len(drawn.objects)
        assert GROUNDS[facts["ground"].index(True)] == drawn.ground

"""Strings: pure functions of split and index, whose characters can be told apart and counted."""

import numpy as np
import pytest

from data import is_drawn, is_of_scenes, open_source
from data.strings import ALPHABET, LENGTHS, SPLITS, glyph, load_strings, render, written


def test_a_string_is_the_same_again_and_another_in_each_split() -> None:
    assert written("train", 7) == written("train", 7)
    assert len({written(split, 7).text for split in SPLITS}) == len(SPLITS)


def test_every_length_and_every_character_comes() -> None:
    texts = [written("train", index).text for index in range(500)]
    assert {len(text) for text in texts} == set(LENGTHS)
    assert set("".join(texts)) == set(ALPHABET)


def test_no_two_characters_look_alike() -> None:
    assert len({glyph(character).tobytes() for character in ALPHABET}) == len(ALPHABET)


@pytest.mark.parametrize("image_size", [32, 48])
def test_all_ink_is_in_the_image_wherever_the_string_strays(image_size: int) -> None:
    for index in range(100):
        drawn = written("val", index)
        inked = (render(drawn, image_size) == np.array(drawn.ink)).all(axis=2).sum()
        assert inked == sum(glyph(character).sum() for character in drawn.text)


def test_the_caption_is_the_string() -> None:
    pairs = load_strings("test", 3, 32)
    assert pairs.captions == tuple((written("test", index).text,) for index in range(3))


def test_strings_are_a_source_that_is_drawn_and_not_scenes() -> None:
    assert is_drawn(["strings"]) and not is_of_scenes(["strings"])
    opened = open_source(["strings"], "test", image_size=32, count=3)
    assert opened.fingerprint == load_strings("test", 3, 32).fingerprint


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="strings have the splits train, val, test, reader, got"):
        written("judge", 0)
    with pytest.raises(ValueError, match="at least 32 pixels a side, got 31"):
        render(written("train", 0), 31)
    with pytest.raises(ValueError, match="the number of strings must be at least 1, got 0"):
        load_strings("train", 0, 32)
    with pytest.raises(ValueError, match="strings never end: count must be a number, got None"):
        open_source(["strings"], "train", image_size=32)

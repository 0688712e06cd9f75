"""Words of captions as tags."""

import pytest

from recipes.tagging import common_words, tags_of

CAPTIONS = [
    *[("a red ring", "RED, round")] * 8,
    *[("a blue ring of fire",)] * 9,
    *[("a square",)] * 4,
    *[("nothing red",)] * 3,
]


def test_the_commonest_words_come_first_but_none_of_most_images() -> None:
    assert common_words(CAPTIONS) == ["red", "blue", "fire", "round"]  # ring is said of 17 of 24


def test_a_word_in_any_caption_tags_the_image_once() -> None:
    tags = tags_of(CAPTIONS, ["red", "round"])
    assert tags[0].tolist() == [True, True] and tags[-1].tolist() == [True, False]
    assert tags.sum(dim=0).tolist() == [11, 8]


def test_captions_without_such_words_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 and at most half of 9 images"):
        common_words([("a dog",)] * 9)

"""The rules of a curation, each by an example whose answer is known."""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data import (
    Alike,
    Candidates,
    Damaged,
    Pair,
    Rule,
    StoredPair,
    curate,
    encode_image,
    look_at,
    looks,
)
from data.caption_rules import balance, repeated_caption, repetition, script, word_count
from data.image_rules import (
    aspect_ratio,
    exact_duplicates,
    exact_leakage,
    near_duplicates,
    near_leakage,
    resolution,
    score,
)
from data.images import resize
from data.scenes import render, scene

ALIKE = Alike(correlation=0.85)


class Listed:
    """A source that is written down in the test."""

    name, fingerprint, skipped = "listed", "0" * 64, {}

    def __init__(self, samples: Sequence[StoredPair | Pair | Damaged]) -> None:
        self.samples = samples
        self.read_often: list[int] = []

    @property
    def counts(self) -> tuple[int, ...]:
        return (len(self),)

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> StoredPair | Pair | Damaged:
        self.read_often.append(index)
        return self.samples[index]

    def captions_of(self, index: int) -> tuple[str, ...]:
        sample = self.samples[index]
        return () if isinstance(sample, Damaged) else sample.captions


def of_captions(*captions: tuple[str, ...]) -> Candidates:
    return Candidates(rows=np.arange(len(captions)), captions=captions)


def of_images(images: Sequence[np.ndarray]) -> Listed:
    return Listed(
        [Pair(key=f"{n}", image=image, captions=("a",)) for n, image in enumerate(images)]
    )


def drawn(index: int, side: int = 64) -> UInt8[np.ndarray, "S S 3"]:
    return render(scene("train", index), side)


def as_jpeg(image: UInt8[np.ndarray, "H W 3"], side: int, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(resize(image, side, side)).save(file, format="JPEG", quality=quality)
    return file.getvalue()


def left(rule: Rule, candidates: Candidates) -> list[int]:
    return rule.apply(candidates).candidates.rows.tolist()


def left_of(source: Listed, *rules: Rule, **options: Any) -> list[int]:
    return curate(source, rules, **options).candidates.rows.tolist()


def test_an_image_goes_with_the_last_of_its_captions() -> None:
    captions = of_captions(("one",), ("one", "one two"), ("one two", "one two three"))
    found = word_count(least=2).apply(captions).candidates
    assert found.rows.tolist() == [1, 2]
    assert found.captions == (("one two",), ("one two", "one two three"))
    assert left(word_count(most=1), captions) == [0, 1]
    assert left(word_count(least=3, most=3), captions) == [2]
    assert left(word_count(most=1), found) == []  # what failed before no longer counts


def test_a_word_that_comes_once_is_no_repetition() -> None:
    captions = of_captions(("dog",), ("dog, Dog",), ("buy buy now now now",), ("a dog and a cat",))
    assert left(repetition(most=0.5), captions) == [0, 3]
    assert left(repetition(most=0.6), captions) == [0, 2, 3]
    assert left(repetition(most=0.3), captions) == [0]


def test_a_script_is_told_by_the_names_of_letters() -> None:
    captions = of_captions(
        ("a dog, 2 cats!",), ("собака",), ("dog собака",), ("123",), ("犬",), ("é",)
    )
    assert left(script("LATIN", least=0.3), captions) == [0, 2, 5]
    assert left(script("LATIN", least=0.5), captions) == [0, 5]
    assert left(script("CYRILLIC", least=0.6), captions) == [1, 2]
    assert left(script("CJK", least=1.0), captions) == [4]


def test_a_caption_of_many_images_counts_for_none() -> None:
    captions = of_captions(("logo",), ("logo", "a cat"), ("logo", "logo"), ("a dog", "a dog"))
    assert left(repeated_caption(most=2), captions) == [1, 3]
    assert left(repeated_caption(most=3), captions) == [0, 1, 2, 3]


def test_balancing_keeps_rare_words_and_a_share_of_common_ones() -> None:
    captions = of_captions(*[("a common thing",)] * 4_000, *[("A rare thing, common",)] * 50)
    found = left(balance(most=1_000, seed=3), captions)
    common = [row for row in found if row < 4_000]
    assert set(range(4_000, 4_050)) <= set(found)
    chance = 1_000 / 4_050  # the word `common`, on every image, as are the others
    assert abs(len(common) - 4_000 * chance) < 4 * (4_000 * chance * (1 - chance)) ** 0.5
    assert found == left(balance(most=1_000, seed=3), captions)
    assert found != left(balance(most=1_000, seed=4), captions)
    assert left(balance(most=5_000, seed=3), captions) == list(range(4_050))


def test_a_draw_depends_on_the_row_and_not_on_what_else_is_left() -> None:
    captions = of_captions(*[("word",)] * 200)
    everything = set(left(balance(most=100, seed=0), captions))
    half = captions.keep(np.arange(200) % 2 == 0)
    assert left(balance(most=50, seed=0), half) == sorted(row for row in everything if row % 2 == 0)


def test_sizes_are_counted_in_pixels_of_the_shorter_side() -> None:
    shapes = [(10, 40), (40, 10), (20, 40), (40, 40)]
    source = of_images([np.zeros((*shape, 3), np.uint8) for shape in shapes])
    source.samples = [
        Pair(key=pair.key, image=pair.image + number, captions=("a",))
        for number, pair in enumerate(source.samples)
    ]
    assert left_of(source, resolution(least=20)) == [2, 3]
    assert left_of(source, aspect_ratio(most=2.0)) == [2, 3]
    assert left_of(source, aspect_ratio(most=1.9)) == [3]
    assert left_of(source, aspect_ratio(most=4.0), resolution(least=10)) == [0, 1, 2, 3]


def test_equal_pixels_stay_once() -> None:
    one, other = drawn(0), drawn(1)
    source = of_images([one, other, one, other[:, ::-1], one])
    source.samples = [
        *source.samples,
        StoredPair(key="png", image=encode_image(other), captions=("another",)),
    ]
    found = curate(source, [exact_duplicates()])
    assert found.candidates.rows.tolist() == [0, 1, 3]
    assert found.steps[-1].alike.tolist() == [[2, 0], [4, 0], [5, 1]]


def test_near_duplicates_stay_once_and_say_what_they_are_like() -> None:
    copy = StoredPair(key="copy", image=as_jpeg(drawn(4), 50, 60), captions=("a",))
    wordy = Pair(key="wordy", image=drawn(20), captions=("too many",))
    source = of_images([drawn(index) for index in range(8)])
    source.samples = [wordy, copy, *source.samples]
    found = curate(source, [word_count(most=1), exact_duplicates(), near_duplicates(ALIKE)])
    assert found.candidates.rows.tolist() == [1, 2, 3, 4, 5, 7, 8, 9]
    assert found.steps[-1].alike.tolist() == [[6, 1]]


@pytest.mark.parametrize(("side", "quality"), [(48, 50), (64, 30), (100, 80)])
def test_an_evaluation_image_in_training_is_found_at_another_size_and_quality(
    side: int, quality: int
) -> None:
    evaluation = of_images([render(scene("test", index), 64) for index in range(20)])
    leaked = [
        StoredPair(
            key="x", image=as_jpeg(evaluation.samples[n].image, side, quality), captions=("a",)
        )
        for n in (7, 12)
    ]
    source = of_images([drawn(index) for index in range(20)])
    source.samples = [*source.samples[:5], *leaked, *source.samples[5:]]
    seen, _, _ = look_at(evaluation, np.arange(20))
    found = curate(source, [exact_leakage(seen), near_leakage(seen, ALIKE)])
    assert [step.removed for step in found.steps] == [0, 0, 0, 2]
    assert found.steps[-1].alike.tolist() == [[5, 7], [6, 12]]
    assert found.steps[-1].is_leakage


def test_exact_leakage_names_the_evaluation_image() -> None:
    seen, _, _ = look_at(of_images([drawn(3), drawn(9), drawn(9)]), np.arange(3))
    found = curate(of_images([drawn(9), drawn(1)]), [exact_leakage(seen)])
    assert found.candidates.rows.tolist() == [1]
    assert found.steps[-1].alike.tolist() == [[0, 1]]


class Brightness:
    """Scores an image by its mean, its captions by how many there are."""

    image_size, fit = 4, "squash"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(
        self, images: UInt8[Tensor, "B 3 4 4"], captions: Sequence[Sequence[str]]
    ) -> Float[Tensor, "B"]:
        self.batches.append(len(images))
        counts = torch.tensor([float(len(of_one)) for of_one in captions])
        return images.float().mean(dim=(1, 2, 3)) / 255 + 10 * (counts - 1)


def test_the_scorer_sees_every_image_with_the_captions_that_passed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "AT_ONCE", 2)
    levels = (0, 255, 51, 102)
    captions = (("a b", "c d"), ("a b",), ("a b", "c"), ("d",))
    pairs = [
        Pair(key="k", image=np.full((9, 5, 3), level, np.uint8), captions=texts)
        for level, texts in zip(levels, captions, strict=True)
    ]
    source = Listed([Damaged(key="bad", reason="bad"), *pairs])
    scorer = Brightness()
    found = curate(source, [word_count(least=2), score(0.5)], scorer=scorer)
    assert found.candidates.rows.tolist() == [1, 2]
    assert found.candidates.seen.scores.tolist() == [10, 1]  # not 0.2 + 10 for the third
    assert scorer.batches == [2, 1]


def test_what_is_damaged_is_removed_and_counted() -> None:
    good = [Pair(key="a", image=drawn(index), captions=("a",)) for index in range(3)]
    cut = as_jpeg(drawn(5), 64, 90)
    bad = [
        Damaged(key="b", reason="altered sample"),
        StoredPair(key="c", image=cut[: len(cut) // 2], captions=("c",)),
        StoredPair(key="d", image=b"no image", captions=("d",)),
    ]
    found = curate(Listed([*bad, *good]), [exact_duplicates()])
    assert found.candidates.rows.tolist() == [3, 4, 5]
    assert [step.record() for step in found.steps] == [
        {"rule": "damaged captions", "removed": 1, "left": 5},
        {
            "rule": "damaged images",
            "reasons": {"truncated image": 1, "not an image": 1},
            "removed": 2,
            "left": 3,
        },
        {"rule": "exact duplicates", "removed": 0, "left": 3},
    ]


def test_images_are_decoded_once_and_only_where_a_rule_needs_them() -> None:
    source = of_images([drawn(index) for index in range(70)])
    left_of(source, word_count(least=1))
    assert source.read_often == []
    source.samples = [
        Pair(key=pair.key, image=pair.image, captions=("a b",) if number % 2 else ("a",))
        for number, pair in enumerate(source.samples)
    ]
    left_of(source, word_count(least=2), resolution(1), exact_duplicates(), near_duplicates(ALIKE))
    assert sorted(source.read_often) == list(range(1, 70, 2))


def test_a_rule_that_leaves_nothing_is_refused_after_all_were_applied() -> None:
    rules = [resolution(1_000), exact_duplicates(), near_duplicates(ALIKE), balance(1, 0)]
    seen, _, _ = look_at(of_images([drawn(0)]), np.arange(1))
    rules += [exact_leakage(seen), near_leakage(seen, ALIKE)]
    with pytest.raises(ValueError, match=r"no pair of listed is left, .*: resolution 2$"):
        curate(of_images([drawn(1), drawn(2)]), rules)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: word_count(least=0), "words must be at least 1"),
        (lambda: word_count(least=3, most=2), "the most no less, got 3 to 2"),
        (lambda: repetition(1.5), r"repeated word must lie in 0\.\.1, got 1\.5"),
        (lambda: script("LATN", 0.5), "has a name that begins with 'LATN'"),
        (lambda: script("LATIN", -0.5), r"a script must lie in 0\.\.1, got -0\.5"),
        (lambda: repeated_caption(0), "images of one caption must be at least 1, got 0"),
        (lambda: balance(0, 0), "images of a word must be at least 1, got 0"),
        (lambda: balance(1, -1), "seed must be at least 0, got -1"),
        (lambda: resolution(0), "shorter side must be at least 1, got 0"),
        (lambda: aspect_ratio(0.5), r"must be at least 1, got 0\.5"),
    ],
)
def test_what_cannot_be_asked_is_refused(make: Callable[[], Rule], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make()

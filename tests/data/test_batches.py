"""What batches promise."""

import io
import tarfile
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from data import (
    Batches,
    Encoding,
    Framing,
    Pair,
    Pairs,
    encode_image,
    open_source,
    pairs_from,
    write_shards,
)
from data.joined import Joined, first

FRAMING = Framing(size=8)


@pytest.fixture
def pairs(make_pairs: Callable[[int], list[Pair]]) -> Pairs:
    return pairs_from("little", make_pairs(10), skipped={})


def test_a_batch_is_a_function_of_its_step_alone(pairs: Pairs) -> None:
    run = [Batches(pairs, FRAMING, batch_size=4, seed=1).at(step) for step in range(8)]
    for step in (5, 2, 7):
        resumed = Batches(pairs, FRAMING, batch_size=4, seed=1).at(step)
        assert torch.equal(resumed.images, run[step].images)
        assert resumed.captions == run[step].captions


@pytest.mark.parametrize("world", [2, 4])
def test_the_world_size_does_not_change_the_order(pairs: Pairs, world: int) -> None:
    for step in range(6):
        alone = Batches(pairs, FRAMING, batch_size=4, seed=1).at(step)
        shares = [
            Batches(pairs, FRAMING, batch_size=4, seed=1, rank=rank, world=world).at(step)
            for rank in range(world)
        ]
        assert torch.equal(alone.indices, torch.cat([share.indices for share in shares]))
        assert torch.equal(alone.images, torch.cat([share.images for share in shares]))
        assert alone.captions == sum((share.captions for share in shares), ())


def test_no_sample_is_dropped_where_batches_straddle_epochs(pairs: Pairs) -> None:
    batches = Batches(pairs, FRAMING, batch_size=4, seed=1)
    seen = torch.cat([batches.at(step).indices for step in range(5)])  # two epochs of ten
    assert seen.bincount().tolist() == [2] * 10


def test_images_and_captions_stay_together(pairs: Pairs) -> None:
    batch = Batches(pairs, FRAMING, batch_size=6, seed=2).at(1)
    for image, caption, index in zip(
        batch.images, batch.captions, batch.indices.tolist(), strict=True
    ):
        assert torch.equal(image, pairs.images[index])
        assert caption in pairs.captions[index]


def test_a_batch_may_be_larger_than_the_set(pairs: Pairs) -> None:
    batch = Batches(pairs, FRAMING, batch_size=25, seed=0).at(0)
    assert batch.indices.bincount().tolist().count(2) == 5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": 4, "world": 3}, "divide by the 3 processes, got 4"),
        ({"batch_size": 4, "rank": 2, "world": 2}, r"rank must be in 0\.\.1, got 2"),
    ],
)
def test_each_impossible_batch_is_refused(
    pairs: Pairs, options: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        Batches(pairs, FRAMING, seed=0, **options)


def test_a_step_before_the_first_is_refused(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="start must be at least 0"):
        Batches(pairs, FRAMING, batch_size=4, seed=0).at(-1)


def shards_with_damage(folder: Path, pairs: list[Pair], damaged: set[int]) -> None:
    """A folder of shards of which some images are cut short."""
    with tarfile.open(folder / "train-000000.tar", "w") as tar:
        for index, pair in enumerate(pairs):
            image = encode_image(pair.image)[: 60 if index in damaged else None]
            for suffix, content in (("png", image), ("txt", "\n".join(pair.captions).encode())):
                info = tarfile.TarInfo(f"{pair.key}.{suffix}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_batches_made_ahead_are_the_same_in_the_same_order(pairs: Pairs, workers: int) -> None:
    batches = Batches(pairs, FRAMING, batch_size=4, seed=1)
    made = list(batches.ahead(3, 9, workers))
    assert [step for step, _ in made] == list(range(3, 9))
    for step, batch in made:
        assert torch.equal(batch.images, batches.at(step).images)
        assert batch.captions == batches.at(step).captions


def test_a_loop_that_ends_early_leaves_no_thread_behind(pairs: Pairs) -> None:
    before = threading.active_count()
    for _ in Batches(pairs, FRAMING, batch_size=4, seed=1).ahead(0, 1_000, workers=2):
        break
    assert threading.active_count() == before


@pytest.mark.parametrize("world", [1, 2])
def test_ten_resumes_in_two_epochs_give_the_uninterrupted_run(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]], world: int
) -> None:
    """From shards, with random crops, mirroring and captions drawn; three integers say where."""
    write_shards(tmp_path, "train", make_pairs(23), per_shard=5)
    framing = Framing(size=6, crop_area=0.5, mirrored=0.5)

    def run(first: int, last: int) -> list[tuple[bytes, tuple[str, ...]]]:
        found = []
        for rank in range(world):
            source = open_source([tmp_path], "train", image_size=6)
            batches = Batches(source, framing, batch_size=4, seed=7, rank=rank, world=world)
            made = batches.ahead(first, last)
            found.append([(b.images.numpy().tobytes(), b.captions) for _, b in made])
        return [x for step in zip(*found, strict=True) for x in step]

    whole = run(0, 12)  # 48 of 23 pairs: past two epochs
    parts = [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12]
    assert [batch for a, b in pairwise(parts) for batch in run(a, b)] == whole


def test_augmentation_and_captions_do_not_depend_on_the_world(
    make_pairs: Callable[[int], list[Pair]],
) -> None:
    source = pairs_from("little", make_pairs(10), skipped={})
    framing = Framing(size=6, crop_area=0.3, mirrored=0.5)
    alone = Batches(source, framing, batch_size=4, seed=1).at(4)
    shares = [
        Batches(source, framing, batch_size=4, seed=1, rank=r, world=4).at(4) for r in range(4)
    ]
    assert torch.equal(alone.images, torch.cat([share.images for share in shares]))
    assert alone.captions == sum((share.captions for share in shares), ())


def test_sets_are_mixed_by_weight(make_pairs: Callable[[int], list[Pair]]) -> None:
    sets = [pairs_from(name, make_pairs(10), skipped={}) for name in "ab"]
    joined = Joined(sets, ["a/", "b/"])
    batches = Batches(joined, FRAMING, batch_size=100, seed=0, weights=(3.0, 1.0))
    drawn = torch.cat([batches.at(step).indices for step in range(10)])
    assert (drawn < 10).sum() == 750
    assert set(drawn.bincount().tolist()) == {75, 25}


def test_another_pair_stands_in_for_a_damaged_one_and_it_is_counted_once(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    pairs = make_pairs(150)
    shards_with_damage(tmp_path, pairs, {17})
    source = open_source([tmp_path], "train", image_size=8)
    batches = Batches(source, FRAMING, batch_size=50, seed=0)
    drawn = [batches.at(step) for step in range(6)]
    for batch in drawn:
        for image, caption, index in zip(batch.images, batch.captions, batch.indices, strict=True):
            assert np.array_equal(image.permute(1, 2, 0).numpy(), pairs[index].image)
            assert caption in pairs[index].captions
    counts = torch.cat([batch.indices for batch in drawn]).bincount(minlength=150)
    assert counts[17] == 0 and counts.sum() == 300
    assert sorted(counts.tolist())[-3:] in ([2, 3, 3], [2, 2, 4])  # two substitutes in two epochs
    assert batches.skipped == {"truncated image": 1}
    again = Batches(source, FRAMING, batch_size=50, seed=0)
    assert [again.at(step).indices.tolist() for step in range(6)] == [
        batch.indices.tolist() for batch in drawn
    ]


def test_too_many_damaged_samples_end_the_run(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    shards_with_damage(tmp_path, make_pairs(150), {3, 77})
    source = open_source([tmp_path], "train", image_size=8)
    sentence = "too many damaged samples, skipped: 2 truncated image among .* the last is 'pair"
    with pytest.raises(ValueError, match=sentence):
        list(Batches(source, FRAMING, batch_size=50, seed=0).ahead(0, 3))
    batches = Batches(source, FRAMING, 0.02, batch_size=50, seed=0)
    list(batches.ahead(0, 3))
    assert batches.skipped == {"truncated image": 2}


def test_a_set_of_which_nothing_can_be_read_ends_the_run(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]]
) -> None:
    shards_with_damage(tmp_path, make_pairs(3), {0, 1, 2})
    source = open_source([tmp_path], "train", image_size=8)
    with pytest.raises(ValueError, match="is damaged, skipped: 3 truncated image"):
        Batches(source, FRAMING, 1.0, batch_size=1, seed=0).at(0)


@pytest.mark.parametrize("image_format", ["jpg", "png"])
def test_an_image_that_is_decoded_in_its_place_is_mirrored_too(
    tmp_path: Path, make_pairs: Callable[[int], list[Pair]], image_format: str
) -> None:
    write_shards(tmp_path, "train", make_pairs(4), encoding=Encoding(format=image_format))
    source = open_source([tmp_path], "train", image_size=8)
    plain = Batches(source, Framing(size=8), batch_size=4, seed=0).at(0)
    turned = Batches(source, Framing(size=8, mirrored=1.0), batch_size=4, seed=0).at(0)
    assert torch.equal(turned.images, plain.images.flip(-1))


def test_weights_that_do_not_go_with_the_sets_are_refused_at_once(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="1 sets need as many weights, got 2"):
        Batches(pairs, FRAMING, batch_size=4, seed=0, weights=(1.0, 1.0))
    half = first(Joined([pairs, pairs], ["a/", "b/"]), 1)
    with pytest.raises(ValueError, match=r"sets with weights must have a pair each, got \[0, 1\]"):
        Batches(half, FRAMING, batch_size=4, seed=0, weights=(1.0, 1.0))


@pytest.mark.parametrize("power", [float("nan"), 2_000.0])
def test_a_power_of_lengths_has_bounds(pairs: Pairs, power: float) -> None:
    with pytest.raises(ValueError, match=r"length_power must lie in -10\.\.10"):
        Batches(pairs, FRAMING, batch_size=4, seed=0, length_power=power)

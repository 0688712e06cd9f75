"""What batches promise."""

from collections.abc import Callable

import pytest
import torch

from data import Batches, Pair, Pairs, View, pairs_from

VIEW = View(size=8)


@pytest.fixture
def pairs(make_pairs: Callable[[int], list[Pair]]) -> Pairs:
    return pairs_from("little", make_pairs(10), skipped={})


def test_a_batch_is_a_function_of_its_step_alone(pairs: Pairs) -> None:
    run = [Batches(pairs, VIEW, batch_size=4, seed=1).at(step) for step in range(8)]
    for step in (5, 2, 7):
        resumed = Batches(pairs, VIEW, batch_size=4, seed=1).at(step)
        assert torch.equal(resumed.images, run[step].images)
        assert resumed.captions == run[step].captions


@pytest.mark.parametrize("world", [2, 4])
def test_the_world_size_does_not_change_the_order(pairs: Pairs, world: int) -> None:
    for step in range(6):
        alone = Batches(pairs, VIEW, batch_size=4, seed=1).at(step)
        shares = [
            Batches(pairs, VIEW, batch_size=4, seed=1, rank=rank, world=world).at(step)
            for rank in range(world)
        ]
        assert torch.equal(alone.indices, torch.cat([share.indices for share in shares]))
        assert torch.equal(alone.images, torch.cat([share.images for share in shares]))
        assert alone.captions == sum((share.captions for share in shares), ())


def test_no_sample_is_dropped_where_batches_straddle_epochs(pairs: Pairs) -> None:
    batches = Batches(pairs, VIEW, batch_size=4, seed=1)
    seen = torch.cat([batches.at(step).indices for step in range(5)])  # two epochs of ten
    assert seen.bincount().tolist() == [2] * 10


def test_images_and_captions_stay_together(pairs: Pairs) -> None:
    batch = Batches(pairs, VIEW, batch_size=6, seed=2).at(1)
    for image, caption, index in zip(
        batch.images, batch.captions, batch.indices.tolist(), strict=True
    ):
        assert torch.equal(image, pairs.images[index])
        assert caption in pairs.captions[index]


def test_a_batch_may_be_larger_than_the_set(pairs: Pairs) -> None:
    assert (
        Batches(pairs, VIEW, batch_size=25, seed=0).at(0).indices.bincount().tolist().count(2) == 5
    )


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
        Batches(pairs, VIEW, seed=0, **options)


def test_a_step_before_the_first_is_refused(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="start must be at least 0"):
        Batches(pairs, VIEW, batch_size=4, seed=0).at(-1)

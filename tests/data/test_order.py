"""What the order of samples promises."""

import numpy as np
import pytest

from data import epoch_order, global_indices
from data.order import hashed, mixed_indices, thousandths


@pytest.mark.parametrize("count", [1, 2, 97])
def test_every_sample_comes_once_per_epoch(count: int) -> None:
    for epoch in range(3):
        assert sorted(epoch_order(5, epoch, count).tolist()) == list(range(count))


def test_epochs_and_seeds_differ_and_repeat() -> None:
    first = epoch_order(0, 0, 50)
    assert np.array_equal(first, epoch_order(0, 0, 50))
    assert not np.array_equal(first, epoch_order(0, 1, 50))
    assert not np.array_equal(first, epoch_order(1, 0, 50))


def test_the_order_stays_what_it_was_when_it_was_written_down() -> None:
    assert epoch_order(0, 0, 8).tolist() == [0, 2, 1, 5, 4, 3, 6, 7]


def test_the_stream_is_the_epochs_end_to_end() -> None:
    indices, epochs = global_indices(3, 0, 25, 10)
    ends = [epoch_order(3, epoch, 10) for epoch in range(3)]
    assert np.array_equal(indices, np.concatenate(ends)[:25])
    assert epochs.tolist() == [0] * 10 + [1] * 10 + [2] * 5


def test_the_stream_can_be_entered_anywhere() -> None:
    whole, _ = global_indices(3, 0, 40, 7)
    for start in range(30):
        assert np.array_equal(global_indices(3, start, 10, 7)[0], whole[start : start + 10])


def test_nobody_can_change_a_remembered_order() -> None:
    with pytest.raises(ValueError, match="read-only"):
        epoch_order(0, 0, 4)[0] = 9


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((-1, 0, 4), "seed"), ((0, -1, 4), "epoch"), ((0, 0, 0), "count")],
)
def test_what_has_no_order_is_refused(arguments: tuple[int, int, int], named: str) -> None:
    with pytest.raises(ValueError, match=f"{named} must be at least"):
        epoch_order(*arguments)


def test_a_negative_position_is_refused() -> None:
    with pytest.raises(ValueError, match="start must be at least 0, got -1"):
        global_indices(0, -1, 4, 10)


def all_of(counts: list[int], weights: list[float], length: int) -> tuple[list[int], list[int]]:
    indices, epochs = mixed_indices(3, 0, length, counts, thousandths(weights))
    return indices.tolist(), epochs.tolist()


def test_each_turn_of_a_mixture_has_every_set_by_its_weight() -> None:
    indices, _ = all_of([70, 30, 500], [6.0, 3.0, 1.0], 4_000)
    for start in range(0, 4_000, 1_000):
        turn = np.searchsorted([70, 100, 600], indices[start : start + 1_000], side="right")
        assert np.bincount(turn).tolist() == [600, 300, 100]


def test_a_set_in_a_mixture_has_whole_epochs_of_its_own() -> None:
    indices, epochs = all_of([70, 30], [9.0, 1.0], 5_000)
    small = [(i, e) for i, e in zip(indices, epochs, strict=True) if i >= 70]
    assert [e for _, e in small] == sorted(e for _, e in small)
    for epoch in range(500 // 30):
        assert sorted(i for i, e in small if e == epoch) == list(range(70, 100))


def test_two_sets_of_one_size_come_in_different_orders() -> None:
    indices, _ = all_of([40, 40], [1.0, 1.0], 1_000)
    one, other = [i for i in indices if i < 40], [i - 40 for i in indices if i >= 40]
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 50


def test_a_mixture_can_be_read_from_anywhere() -> None:
    whole, epochs = all_of([7, 11, 13], [1.0, 2.0, 3.0], 3_000)
    for start, length in ((0, 1), (999, 2), (1_000, 500), (1_234, 1_300)):
        found = mixed_indices(3, start, length, [7, 11, 13], thousandths([1.0, 2.0, 3.0]))
        assert found[0].tolist() == whole[start : start + length]
        assert found[1].tolist() == epochs[start : start + length]


def test_one_set_alone_is_mixed_as_it_is_read() -> None:
    mixed, alone = mixed_indices(5, 90, 50, [40], (1_000,)), global_indices(5, 90, 50, 40)
    assert (mixed[0] == alone[0]).all() and (mixed[1] == alone[1]).all()


@pytest.mark.parametrize(
    ("weights", "shares"),
    [
        ([1.0], (1_000,)),
        ([1.0, 1.0, 1.0], (334, 333, 333)),
        ([0.999, 0.001], (999, 1)),
        ([2.0, 6.0], (250, 750)),
    ],
)
def test_shares_add_up_to_a_thousand(weights: list[float], shares: tuple[int, ...]) -> None:
    assert thousandths(weights) == shares


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ([], "weights must be above 0"),
        ([1.0, 0.0], r"weights must be above 0, got \[1\.0, 0\.0\]"),
        ([1.0, -1.0], "above 0"),
        ([1.0, float("nan")], "above 0"),
        ([1.0, float("inf")], "above 0"),
        ([1.0, 1e-4], "at least a thousandth of their sum"),
    ],
)
def test_weights_that_cannot_be_kept_are_refused(weights: list[float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        thousandths(weights)


def test_hashes_are_fixed_for_ever() -> None:
    """SplitMix64's first number for seed 0, and for 1 after 0."""
    assert hashed(0) == 0xE220A8397B1DCDAF
    assert len({hashed(a, b) for a in range(30) for b in range(30)}) == 900
    assert hashed(1, 2) != hashed(2, 1)

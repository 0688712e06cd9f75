"""What the order of samples promises."""

import numpy as np
import pytest

from data import epoch_order, global_indices


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

"""Precision and recall: sets of which both are known, and a loop over every pair."""

import pytest
import torch
from torch import Tensor

from ar.evaluation import frechet_distance, kernel_distance, precision_recall


def line(*places: float) -> Tensor:
    """Images with one feature that matters and one that does not."""
    return torch.tensor([[place, 1.0] for place in places])


def test_a_set_covers_itself_in_any_order() -> None:
    images = torch.randn(30, 5)
    assert precision_recall(images, images) == (1, 1)
    assert precision_recall(images, images[torch.randperm(30)]) == (1, 1)


def test_sets_far_apart_cover_nothing_of_each_other() -> None:
    images = torch.randn(30, 5)
    assert precision_recall(images, images + 100) == (0, 0)


def test_a_part_looks_real_and_misses_the_rest() -> None:
    real = line(0, 1, 2, 3, 100, 101, 102, 103)
    assert precision_recall(real, real[:4]) == (1, 0.5)
    assert precision_recall(real[:4], real) == (0.5, 1)


def test_what_lies_on_the_edge_of_a_ball_lies_in_it() -> None:
    real = line(0, 1, 2, 3)  # the balls reach 3, 2, 2 and 3 far
    assert precision_recall(real, line(-3, 6, 6.5, -3.5)) == (0.5, 1)
    assert precision_recall(real, line(-1, 4, 4.5, -1.5), neighbours=1)[0] == 0.5


def test_one_image_again_and_again_covers_little() -> None:
    real = torch.randn(40, 3)
    precision, recall = precision_recall(real, real[:1].repeat(40, 1))
    assert precision == 1 and recall == 1 / 40


def test_they_are_those_of_a_loop_over_every_pair() -> None:
    real, other = torch.randn(300, 4), torch.randn(270, 4) + 0.7  # more than are held at once

    def covered(images: Tensor, centres: Tensor) -> float:
        apart = torch.stack([(centres - x).double().norm(dim=1) for x in centres])
        reach = apart.sort(dim=1).values[:, 3]
        hits = [bool(((centres - x).double().norm(dim=1) <= reach).any()) for x in images]
        return sum(hits) / len(hits)

    assert precision_recall(real, other) == (covered(other, real), covered(real, other))


@pytest.mark.parametrize("measure", [precision_recall, frechet_distance, kernel_distance])
def test_sets_that_cannot_be_compared_are_refused(measure) -> None:
    images = torch.randn(9, 4)
    with pytest.raises(ValueError, match="must have the same features, got 4 and 3"):
        measure(images, images[:, :3])
    with pytest.raises(ValueError, match="must be finite, got nan or infinity"):
        measure(images, images * torch.nan)


def test_too_few_images_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="3 neighbours needs at least 4 images, got 3"):
        precision_recall(torch.randn(9, 4), torch.randn(3, 4))

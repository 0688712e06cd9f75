"""Perceptual distance: LPIPS with equal weights, moving only what rebuilt the image."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from orderer.objectives import Teacher, perceptual_distance

Save = Callable[[str], Path]


def images() -> Tensor:
    return torch.rand(2, 3, 16, 16) * 2 - 1


def test_an_image_is_at_no_distance_from_itself(vision_model: Save) -> None:
    one = images()
    assert perceptual_distance(Teacher(vision_model("convnext")), one, one) == 0


def test_it_is_the_sum_of_squared_chords_between_features(vision_model: Save) -> None:
    """|u - v|^2 = 2 - 2 cos for unit vectors: an independent form of equation 1."""
    teacher = Teacher(vision_model("convnext"))
    one, two = images(), images()
    stages = zip(teacher.stages(one), teacher.stages(two), strict=True)
    cosines = [torch.cosine_similarity(a, b, dim=1).mean() for a, b in stages]
    expected = sum(2 - 2 * cosine for cosine in cosines)
    torch.testing.assert_close(perceptual_distance(teacher, one, two), torch.as_tensor(expected))


def test_gradients_reach_the_rebuilt_image_and_not_the_original(vision_model: Save) -> None:
    rebuilt, real = images().requires_grad_(), images().requires_grad_()
    perceptual_distance(Teacher(vision_model("resnet")), rebuilt, real).backward()
    assert rebuilt.grad is not None and rebuilt.grad.abs().sum() > 0
    assert real.grad is None


def test_descending_on_it_makes_images_alike(vision_model: Save) -> None:
    teacher = Teacher(vision_model("convnext"))
    rebuilt, real = images().requires_grad_(), images()
    optimizer = torch.optim.Adam([rebuilt], lr=0.05)
    before = perceptual_distance(teacher, rebuilt, real).item()
    for _ in range(30):
        optimizer.zero_grad()
        perceptual_distance(teacher, rebuilt, real).backward()
        optimizer.step()
    assert perceptual_distance(teacher, rebuilt, real) < before / 2

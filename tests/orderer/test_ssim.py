"""Structural similarity against scikit-image, and where it is known."""

import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from orderer.evaluation import mean_ssim, ssim


def images(seed: int, number: int = 3, size: tuple[int, int] = (20, 33)) -> Tensor:
    """Smooth ones with a little noise, as photographs are."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, 3, 4, 5, generator=random)
    fine = torch.nn.functional.interpolate(coarse, size, mode="bicubic").clamp(0, 1)
    noise = 0.1 * torch.randn(fine.shape, generator=random)
    return ((fine + noise).clamp(0, 1) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("size", [(20, 33), (11, 11), (64, 48)])
def test_it_is_that_of_scikit_image(size: tuple[int, int]) -> None:
    first = images(0, 70, size)  # more than are seen at once
    second = ((first.float() + images(1, 70, size).float()) / 2).round().to(torch.uint8)
    expected = [
        structural_similarity(
            x.numpy(),
            y.numpy(),
            channel_axis=0,
            data_range=255,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for x, y in zip(first, second, strict=True)
    ]
    assert ssim(first, second).tolist() == pytest.approx(expected, abs=1e-9)
    assert mean_ssim(first, second) == pytest.approx(sum(expected) / 70, abs=1e-9)


def test_equal_images_are_as_similar_as_can_be_and_either_may_come_first() -> None:
    first, second = images(0), images(1)
    assert ssim(first, first).tolist() == pytest.approx([1] * 3)
    assert torch.allclose(ssim(first, second), ssim(second, first))


def test_plain_images_differ_by_their_light_alone() -> None:
    dark, light = torch.full((2, 1, 3, 16, 16), 51, dtype=torch.uint8).unbind()
    light[:] = 102
    expected = (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4)
    assert ssim(dark, light).item() == pytest.approx(expected)


def test_other_ranges_shapes_and_small_images_are_refused() -> None:
    first = images(0)
    with pytest.raises(ValueError, match=r"must be uint8, got torch\.uint8 and torch\.float32"):
        ssim(first, first / 255)
    with pytest.raises(ValueError, match=r"shape \(3, 3, 20, 33\), got \(3, 3, 20, 20\)"):
        ssim(first, first[..., :20])
    with pytest.raises(ValueError, match="at least 11 x 11 pixels, got 10 x 33"):
        ssim(first[:, :, :10], first[:, :, :10])

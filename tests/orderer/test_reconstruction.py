"""What the error of rebuilt images promises."""

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from orderer.evaluation import mean_psnr, psnr


def random_images(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8, generator=random)


def test_a_hundredth_of_the_range_squared_is_20_db() -> None:
    images = torch.zeros(2, 3, 10, 10, dtype=torch.uint8)
    rebuilt = images.clone()
    rebuilt[:, :, 0, 0] = 255  # one pixel of a hundred, wrong by the whole range
    assert psnr(images, rebuilt).tolist() == pytest.approx([20, 20], abs=1e-12)


def test_it_equals_the_definition_and_does_not_wrap_around() -> None:
    images, rebuilt = random_images(0), random_images(1)
    mse = (images.double() - rebuilt.double()).square().mean(dim=(1, 2, 3))
    expected = 10 * torch.log10(255**2 / mse)
    assert torch.allclose(psnr(images, rebuilt), expected, atol=1e-5, rtol=0)
    assert torch.equal(psnr(images, rebuilt), psnr(rebuilt, images))
    assert mean_psnr(images, rebuilt) == pytest.approx(expected.mean().item(), abs=1e-5)


def test_it_is_that_of_scikit_image() -> None:
    images, rebuilt = random_images(2), random_images(3)
    expected = [
        peak_signal_noise_ratio(x.numpy(), y.numpy(), data_range=255)
        for x, y in zip(images, rebuilt, strict=True)
    ]
    assert psnr(images, rebuilt).tolist() == pytest.approx(expected, abs=1e-6)


def test_equal_images_get_a_finite_best() -> None:
    assert psnr(random_images(0), random_images(0)).tolist() == [100] * 4


def test_other_ranges_and_shapes_are_refused() -> None:
    images = random_images(0)
    with pytest.raises(ValueError, match=r"must be uint8, got torch\.uint8 and torch\.float32"):
        psnr(images, images / 127.5 - 1)
    with pytest.raises(ValueError, match=r"shape \(4, 3, 8, 8\), got \(3, 3, 8, 8\)"):
        psnr(images, images[:3])
    with pytest.raises(ValueError, match="no images"):
        psnr(images[:0], images[:0])

"""Distances between sets of features: closed forms, an independent root, a direct double loop."""

from itertools import product

import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.linalg import sqrtm
from torch import Tensor

from ar.evaluation import frechet_distance, kernel_distance


def white(number: int, features: int) -> Tensor:
    """A set whose mean is exactly 0 and whose covariance is exactly the identity."""
    x = torch.randn(number, features, dtype=torch.float64)
    x = x - x.mean(dim=0)
    root = torch.linalg.cholesky(torch.cov(x.T))
    return torch.linalg.solve_triangular(root, x.T, upper=False).T


def test_the_frechet_distance_of_gaussians_along_the_axes_is_that_of_their_deviations() -> None:
    mean = torch.tensor([3.0, 0.0, -1.0, 0.5]).double()
    deviations = torch.tensor([0.2, 1.0, 2.0, 5.0]).double()
    found = frechet_distance(white(40, 4), mean + deviations * white(30, 4))
    expected = mean.square().sum() + (deviations - 1).square().sum()
    assert found == pytest.approx(expected.item(), rel=1e-9)


def test_turned_gaussians_are_as_far_apart_as_unturned_ones() -> None:
    turn = torch.linalg.qr(torch.randn(4, 4).double()).Q
    mean = torch.tensor([3.0, 0.0, -1.0, 0.5]).double()
    a = torch.tensor([0.1, 1.0, 2.0, 5.0]).double()
    b = torch.tensor([2.0, 0.3, 2.0, 0.7]).double()
    found = frechet_distance(white(40, 4) * a @ turn, (white(30, 4) * b + mean) @ turn)
    expected = mean.square().sum() + (a - b).square().sum()
    assert abs(found - expected.item()) <= 1e-8


def test_the_frechet_distance_is_that_of_another_library() -> None:
    a, b = torch.randn(90, 8) @ torch.randn(8, 8), torch.randn(70, 8) @ torch.randn(8, 8) + 1
    moments = [(x.double().mean(dim=0).numpy(), torch.cov(x.double().T).numpy()) for x in (a, b)]
    expected = calculate_frechet_distance(*moments[0], *moments[1])
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_is_that_of_scipys_root() -> None:
    a, b = torch.randn(50, 6) @ torch.randn(6, 6), torch.randn(60, 6) @ torch.randn(6, 6) + 1
    first, second = (torch.cov(x.double().T).numpy() for x in (a, b))
    apart = (a.double().mean(dim=0) - b.double().mean(dim=0)).square().sum().item()
    expected = apart + (first + second - 2 * sqrtm(first @ second).real).trace()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_a_set_is_at_no_distance_from_itself_and_turning_both_changes_nothing() -> None:
    a, b = torch.randn(30, 5).double(), 2 * torch.randn(40, 5).double() + 1
    turn = torch.linalg.qr(torch.randn(5, 5).double()).Q
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(frechet_distance(a, b))


def test_a_feature_that_never_varies_is_no_trouble() -> None:
    a, b = torch.randn(30, 3).double(), torch.randn(30, 3).double()
    a[:, 1], b[:, 1] = 0.0, 2.0
    without = frechet_distance(a[:, ::2], b[:, ::2])
    assert frechet_distance(a, b) == pytest.approx(without + 4)


def test_fewer_images_than_features_have_no_frechet_distance() -> None:
    with pytest.raises(ValueError, match="of 5 features needs at least 6 images, got 5"):
        frechet_distance(torch.randn(6, 5), torch.randn(5, 5))


def test_the_kernel_distance_is_that_of_a_double_loop() -> None:
    a, b = torch.randn(7, 4).double(), torch.randn(9, 4).double() + 0.5

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    def mean(x: Tensor, y: Tensor, same: bool) -> float:
        pairs = product(range(len(x)), range(len(y)))
        kept = [kernel(x[i], y[j]) for i, j in pairs if not (same and i == j)]
        return sum(kept) / len(kept)

    expected = mean(a, a, True) + mean(b, b, True) - 2 * mean(a, b, False)
    assert kernel_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_the_kernel_distance_of_one_distribution_is_0_in_the_mean() -> None:
    found = torch.tensor([kernel_distance(*torch.randn(2, 8, 3)) for _ in range(2000)])
    assert abs(found.mean()) < 4 * found.std() / 2000**0.5
    assert found.min() < 0 < found.max()


def test_one_image_has_no_kernel_distance() -> None:
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        kernel_distance(torch.randn(6, 5), torch.randn(1, 5))

"""A Gaussian of all tokens: closed forms of what it guesses and what it costs."""

import math

import pytest
import torch

from recipes.gaussian import Gaussian
from recipes.rating import shrunk

K, D = 3, 2
NOISE = 0.4


@pytest.fixture
def mix() -> torch.Tensor:
    """Makes tokens that depend on each other."""
    return torch.randn(K * D, K * D, dtype=torch.float64)


def drawn(mix: torch.Tensor, number: int) -> torch.Tensor:
    return (torch.randn(number, K * D, dtype=torch.float64) @ mix.T + 1).view(-1, K, D)


def test_it_guesses_what_no_linear_map_guesses_better(mix: torch.Tensor) -> None:
    gaussian = Gaussian.fit(drawn(mix, 20_000))
    tokens = drawn(mix, 20_000)
    noisy = tokens + NOISE * torch.randn_like(tokens)
    error = (gaussian.guess(noisy, NOISE) - tokens).square().mean().item()
    covariance, blur = mix @ mix.T, NOISE**2 * torch.eye(K * D, dtype=torch.float64)
    left = covariance - covariance @ torch.linalg.solve(covariance + blur, covariance)
    assert error == pytest.approx(left.trace().item() / (K * D), rel=0.02)
    assert error < (shrunk(noisy - 1, NOISE) + 1 - tokens).square().mean().item()


def test_its_price_is_the_information_of_tokens_that_are_normal(mix: torch.Tensor) -> None:
    gaussian = Gaussian.fit(drawn(mix, 20_000))
    noisy = drawn(mix, 20_000) + NOISE * torch.randn(20_000, K, D, dtype=torch.float64)
    signal = torch.eye(K * D, dtype=torch.float64) + mix @ mix.T / NOISE**2
    assert gaussian.nats(noisy, NOISE) == pytest.approx(signal.logdet().item() / 2, rel=0.01)


def test_a_wrong_gaussian_costs_more(mix: torch.Tensor) -> None:
    noisy = drawn(mix, 5000) + NOISE * torch.randn(5000, K, D, dtype=torch.float64)
    right, wrong = Gaussian.fit(drawn(mix, 5000)), Gaussian.fit(drawn(mix.T.contiguous(), 5000))
    assert wrong.nats(noisy, NOISE) > right.nats(noisy, NOISE) + 0.1


def test_turning_all_tokens_changes_no_price(mix: torch.Tensor) -> None:
    train, tokens = drawn(mix, 500), drawn(mix, 200)
    turn = torch.linalg.qr(torch.randn(K * D, K * D, dtype=torch.float64)).Q
    turned = [(each.flatten(1) @ turn).view(-1, K, D) for each in (train, tokens)]
    nats = Gaussian.fit(train).nats(tokens, NOISE)
    assert Gaussian.fit(turned[0]).nats(turned[1], NOISE) == pytest.approx(nats)


def test_few_images_draw_it_towards_a_sphere() -> None:
    few = Gaussian.fit(torch.randn(4, K, D, dtype=torch.float64)).variances
    many = Gaussian.fit(torch.randn(4000, K, D, dtype=torch.float64)).variances
    assert (few > 0).all()  # 4 images span 3 axes
    assert many.std() / many.mean() < 0.1


def test_what_has_no_spread_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 images or more, got 1"):
        Gaussian.fit(torch.randn(1, K, D))
    with pytest.raises(ValueError, match="tokens of 5 images do not differ"):
        Gaussian.fit(torch.ones(5, K, D))


def test_without_noise_everything_is_kept() -> None:
    tokens = torch.randn(50, K, D, dtype=torch.float64)
    gaussian = Gaussian.fit(tokens)
    assert torch.allclose(gaussian.guess(tokens, 0.0), tokens)
    assert gaussian.nats(tokens, 1e-6) > 5 * math.log(1e6)

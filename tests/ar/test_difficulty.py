"""Nats over a Gaussian of the position, and how evenly they are spread."""

import pytest
import torch

from ar import ARConfig, ARModel
from ar.evaluation import gini, marginal_log_prob, variation
from ar.model import NOISE_FLOOR


def test_one_position_that_gains_all_and_all_that_gain_alike() -> None:
    alone, alike = torch.tensor([0.0, 0.0, 0.0, 2.0]), torch.full((4,), 0.7)
    assert gini(alone) == pytest.approx(3 / 4) and variation(alone) == pytest.approx(3**0.5)
    assert gini(alike) == pytest.approx(0) and variation(alike) == pytest.approx(0)


def test_the_index_of_a_straight_rise_is_a_closed_form() -> None:
    rise = torch.arange(1.0, 11.0)
    assert gini(rise) == pytest.approx((10**2 - 1) / (3 * 10 * 11))
    assert gini(3 * rise) == pytest.approx(gini(rise))


def test_a_loss_counts_as_no_gain() -> None:
    assert gini(torch.tensor([-1.0, 4.0])) == gini(torch.tensor([0.0, 4.0]))


def test_where_nothing_is_gained_there_is_no_spread() -> None:
    for spread in (gini, variation):
        with pytest.raises(ValueError, match=r"above 0 in the mean, got -0\.5"):
            spread(torch.tensor([-1.0, 0.0]))


def test_the_marginal_is_the_mean_of_a_gaussian_over_noise() -> None:
    train, tokens = torch.randn(500, 2, 3) @ torch.randn(3, 3), torch.randn(4, 2, 3)
    noise = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    found = marginal_log_prob(train, tokens, noise)
    for k in range(2):
        gaussian = torch.distributions.MultivariateNormal(
            train[:, k].mean(dim=0), train[:, k].T.cov() + noise[k].square().diag()
        )
        noisy = tokens[:, k] + noise[k] * torch.randn(50_000, 4, 3)
        expected = gaussian.log_prob(noisy).mean(dim=0)
        torch.testing.assert_close(found[:, k].float(), expected, atol=0.05, rtol=0.01)


def test_a_model_that_knows_the_gaussian_alone_gains_nothing() -> None:
    config = ARConfig(tokens=3, token_dim=2, condition="none", width=16, heads=2, head="regression")
    model = ARModel(config).eval()  # an untrained head says 0, with a deviation of 1
    train = 5 + 2 * torch.randn(4_000, 3, 2)
    model.set_statistics(train.mean(dim=0), train.std(dim=0))
    tokens = 5 + 2 * torch.randn(2_000, 3, 2)
    known = model.log_prob(tokens, model.unconditioned(2_000))
    gain = known - marginal_log_prob(train, tokens, NOISE_FLOOR * model.std)
    assert gain.shape == (2_000, 3)
    assert gain.mean(dim=0).abs().max() < 0.02


def test_too_few_images_for_a_covariance_are_refused() -> None:
    with pytest.raises(ValueError, match="needs at least 4 training images, got 3"):
        marginal_log_prob(torch.randn(3, 2, 3), torch.randn(1, 2, 3), torch.ones(2, 3))

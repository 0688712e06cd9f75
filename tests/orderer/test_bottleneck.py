"""The scale of tokens."""

import torch

from orderer.bottleneck import Bottleneck, add_token_noise, normalise_tokens


def test_a_token_has_zero_mean_and_unit_variance() -> None:
    tokens = normalise_tokens(5 + 3 * torch.randn(2, 4, 32))
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(2, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        tokens.var(dim=-1, correction=0), torch.ones(2, 4), atol=1e-4, rtol=0
    )


def test_a_token_is_normalised_whatever_the_others_are() -> None:
    tokens = torch.randn(1, 4, 8)
    assert torch.equal(normalise_tokens(tokens)[:, :2], normalise_tokens(tokens[:, :2]))


def test_noise_of_zero_changes_nothing() -> None:
    tokens = torch.randn(2, 4, 8)
    assert torch.equal(add_token_noise(tokens, 0.0), tokens)


def test_the_deviation_of_noise_is_uniform_over_images() -> None:
    noise = add_token_noise(torch.zeros(2_000, 16, 16), 0.5)
    deviations = noise.flatten(1).std(dim=1)
    assert 0.24 < deviations.mean() < 0.26 and deviations.max() < 0.56


def test_on_the_sphere_all_have_one_norm_but_zero_whose_gradient_is_bounded() -> None:
    sphere = Bottleneck("sphere", 9)
    torch.testing.assert_close(sphere(torch.randn(2, 4, 9)).norm(dim=-1), torch.full((2, 4), 3.0))
    zero = torch.zeros(1, 1, 9, requires_grad=True)
    made = sphere(zero)
    (gradient,) = torch.autograd.grad(made[..., 0].sum(), zero)
    assert not made.any() and gradient.abs().max() <= 3.1e6

"""The single-transformer scheme: its mask, and that its parts are one model."""

from typing import Any

import pytest
import torch
from torch import Tensor

from ar import ARConfig, ARModel, Condition, Sampling
from ar.heads.in_trunk import InTrunkHead, noisy_mask
from ar.sampling import row_noise
from orderer.flow import euler, guide, uniform_times

ROUNDING = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def model() -> ARModel:
    config = ARConfig(
        head="in_trunk", tokens=4, token_dim=3, condition_dim=16, width=16, heads=2, layers=2,
        mlp_width=32, draws=2,
    )  # fmt: skip
    model = ARModel(config).eval()
    assert isinstance(model.head, InTrunkHead)
    torch.nn.init.normal_(model.head.to_token.weight, std=0.3)
    return model


@pytest.fixture
def condition(model: ARModel) -> Condition:
    """Captions of five and of three word pieces."""
    keep = torch.arange(5) < torch.tensor([[5], [3]])
    return model.conditioned_on_text(torch.randn(2, 5, 16), keep)


def test_the_mask_written_out() -> None:
    keep = torch.tensor([[True, False]])
    found = noisy_mask(keep, tokens=2, levels=2)[0, 0].int().tolist()
    assert found == [
        # condition | start z1 | noisy z1 z2, and again
        [1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0],  # padding is seen by itself only
        [1, 0, 1, 0, 0, 0, 0, 0],
        [1, 0, 1, 1, 0, 0, 0, 0],
        [1, 0, 1, 0, 1, 0, 0, 0],
        [1, 0, 1, 1, 0, 1, 0, 0],
        [1, 0, 1, 0, 0, 0, 1, 0],
        [1, 0, 1, 1, 0, 0, 0, 1],
    ]


def predict(
    model: ARModel, noisy: Tensor, t: Tensor, clean: Tensor, condition: Condition
) -> Tensor:
    assert isinstance(model.head, InTrunkHead)
    return model.head.output_through(model.trunk, noisy, t, clean, condition)


def test_a_prediction_sees_clean_tokens_before_it_and_its_own_noisy_copy(
    model: ARModel, condition: Condition
) -> None:
    noisy, clean = torch.randn(2, 2, 4, 3).requires_grad_(), torch.randn(2, 4, 3).requires_grad_()
    found = predict(model, noisy, torch.rand(2, 2, 1), clean, condition)
    for k in range(4):
        to_noisy, to_clean = torch.autograd.grad(
            found[0, 1, k].sum(), (noisy, clean), retain_graph=True
        )
        at = (to_noisy.abs().sum(dim=-1) > 0).nonzero().tolist()
        assert at == [[0, 1, k]]
        assert to_clean[1].abs().sum(dim=-1).gt(0).tolist() == [i < k for i in range(4)]


@torch.no_grad()
def test_levels_together_are_levels_apart(model: ARModel, condition: Condition) -> None:
    noisy, clean, t = torch.randn(2, 2, 4, 3), torch.randn(2, 4, 3), torch.rand(2, 2, 1)
    together = predict(model, noisy, t, clean, condition)
    apart = [predict(model, noisy[i, None], t[i, None], clean, condition) for i in range(2)]
    torch.testing.assert_close(together, torch.cat(apart), **ROUNDING)


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("context_scale", [1.0, 3.0])
@pytest.mark.parametrize("guidance_scale", [1.0, 2.5])
def test_cached_sampling_is_the_masked_full_pass(
    model: ARModel, condition: Condition, guidance_scale: float, context_scale: float, cache: Any
) -> None:
    sampling = Sampling(
        guidance_scale=guidance_scale, context_scale=context_scale, steps=3, cache=cache
    )
    model.config.context_drop = 0.1
    cached = model.generate(condition, sampling=sampling, seeds=[1, 2])
    noise = row_noise([1, 2], (4, 1, 3), torch.device("cpu"))[:, :, 0]
    null, tokens, times = model.unconditioned(2), torch.zeros(2, 4, 3), uniform_times(3)
    for k in range(4):

        def velocity(x: Tensor, step: int, k: int = k) -> Tensor:
            noisy = torch.zeros(1, 2, 4, 3)
            noisy[0, :, k] = x
            t = torch.full((1, 2, 1), times[step])
            whole, unconditional, forgetful = (
                predict(model, noisy, t, context, given)[0, :, k]
                for context, given in (
                    (tokens, condition),
                    (tokens, null),
                    (torch.zeros_like(tokens), condition),
                )
            )
            by_condition = guide(whole, unconditional, guidance_scale)
            by_context = guide(whole, forgetful, context_scale)
            return (by_condition + by_context - whole - x) / (1 - times[step])

        tokens[:, k] = euler(velocity, noise[:, k], times)
    assert cached.std() > 0.1
    torch.testing.assert_close(cached, tokens, **ROUNDING)


@torch.no_grad()
def test_the_likelihood_of_a_token_does_not_depend_on_later_ones(
    model: ARModel, condition: Condition
) -> None:
    tokens = torch.randn(2, 4, 3)
    changed = tokens.clone()
    changed[:, 2:] += 1
    first, second = (
        model.log_prob(x, condition, generator=torch.Generator().manual_seed(0))
        for x in (tokens, changed)
    )
    torch.testing.assert_close(first[:, :2], second[:, :2], **ROUNDING)
    assert not torch.allclose(first[:, 2:], second[:, 2:])


def test_the_loss_reaches_every_parameter(model: ARModel, condition: Condition) -> None:
    half = model.drop(condition, torch.tensor([True, False]))
    model.loss(torch.randn(2, 4, 3), half).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_fifty_steps_learn() -> None:
    config = ARConfig(
        head="in_trunk", tokens=3, token_dim=2, condition="none", width=32, heads=2, layers=2,
        mlp_width=64, draws=4,
    )  # fmt: skip
    model = ARModel(config).train()
    tokens = torch.randn(1, 3, 2).repeat(64, 1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(50):
        loss = model.loss(tokens, model.unconditioned(64)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.2 * sum(losses[:5])

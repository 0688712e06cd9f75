"""A model of random orders knows where each token stands; tokens may share one scale."""

from dataclasses import replace

import pytest
import torch

from ar import ARConfig, ARModel, Sampling
from ar.joint import rate

K, D = 5, 3
ROUNDING = {"atol": 2e-5, "rtol": 0.0}


def model_of(**settings) -> ARModel:
    config = ARConfig(
        tokens=K,
        token_dim=D,
        condition="none",
        width=16,
        heads=2,
        layers=1,
        mlp_width=32,
        head_width=16,
        head_layers=1,
        **settings,
    )
    model = ARModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))  # nothing starts at 0
    return model


@pytest.fixture
def model() -> ARModel:
    return model_of(order="random")


def in_order(model: ARModel, *orders: list[int]):
    return replace(model.unconditioned(len(orders)), order=torch.tensor(orders))


@torch.no_grad()
def test_a_state_sees_nothing_of_the_tokens_that_come_later_in_its_order(model):
    condition = in_order(model, [3, 1, 4, 0, 2])
    tokens = torch.randn(1, K, D)
    other = tokens.clone()
    other[:, [0, 2]] += 1  # the last two to come
    _, (one, two) = model.ordered(condition, None, tokens, other)
    states = [model.trunk(each[:, :-1], condition) for each in (one, two)]
    assert torch.equal(states[0][:, :4], states[1][:, :4])
    assert not torch.allclose(states[0][:, 4], states[1][:, 4])


@torch.no_grad()
def test_the_models_states_are_those_of_its_conditions_order(model):
    order = [3, 1, 4, 0, 2]
    condition, tokens = in_order(model, order), torch.randn(1, K, D)
    states = model.trunk(model.standardise(tokens)[:, order][:, :-1], condition)
    assert torch.equal(model(tokens, condition), states)


@torch.no_grad()
def test_a_state_knows_which_token_comes_next_and_which_one_came(model):
    tokens = torch.randn(1, 2, D)
    states = [
        model.trunk(tokens, in_order(model, order))[:, 2]
        for order in ([0, 1, 2, 3, 4], [0, 1, 3, 2, 4], [0, 4, 2, 3, 1])
    ]
    assert not torch.allclose(states[0], states[1])
    assert not torch.allclose(states[0], states[2])


@torch.no_grad()
def test_generated_tokens_return_to_their_own_places(model):
    mean = 100.0 * torch.arange(K)[:, None].expand(K, D)
    model.set_statistics(mean, torch.ones(K, D))
    tokens = model.generate(model.unconditioned(3), sampling=Sampling(steps=2), seeds=[1, 2, 3])
    assert ((tokens - mean).abs() < 50).all()


@torch.no_grad()
@pytest.mark.parametrize("context_scale", [1.0, 2.0])
def test_an_image_depends_on_its_seed_and_not_on_its_batch(model, context_scale):
    model.config.context_drop = 0.1
    sampling = Sampling(steps=2, context_scale=context_scale)
    together = model.generate(model.unconditioned(3), sampling=sampling, seeds=[7, 8, 9])
    alone = model.generate(model.unconditioned(1), sampling=sampling, seeds=[8])
    torch.testing.assert_close(alone[0], together[1], **ROUNDING)
    assert not torch.allclose(together[0], together[1])


@torch.no_grad()
def test_each_call_draws_orders_of_its_own_unless_it_is_given_one(model):
    tokens = torch.randn(2, K, D)
    drawn = [
        model.log_prob(tokens, model.unconditioned(2), generator=torch.Generator().manual_seed(s))
        for s in (0, 0, 1)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.allclose(drawn[0].sum(dim=1), drawn[2].sum(dim=1))
    given = in_order(model, [0, 1, 2, 3, 4], [4, 3, 2, 1, 0])
    found, _ = model.ordered(given, None)
    assert found.order is given.order


@torch.no_grad()
def test_density_keeps_its_unit_in_every_order():
    """Tokens that are scaled lose the logarithm of the scale, each at its own place."""
    scale = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None].expand(K, D)
    plain, scaled = model_of(order="random"), None
    scaled = ARModel(plain.config).eval()
    scaled.load_state_dict(plain.state_dict())
    scaled.set_statistics(torch.zeros(K, D), scale.contiguous())
    condition = in_order(plain, [3, 1, 4, 0, 2])
    tokens = torch.randn(1, K, D)
    a = plain.log_prob(tokens, condition, generator=torch.Generator().manual_seed(0))
    b = scaled.log_prob(tokens * scale, condition, generator=torch.Generator().manual_seed(0))
    lost = D * scale[:, 0].log()[condition.order]
    torch.testing.assert_close(a - b, lost, atol=1e-3, rtol=1e-3)


def test_the_given_order_is_the_default_and_changes_nothing():
    model = model_of()
    condition = model.unconditioned(2)
    tokens = torch.randn(2, K, D)
    found, (same,) = model.ordered(condition, None, tokens)
    assert found is condition and same is tokens
    assert model.config.order == "given"


@torch.no_grad()
def test_a_rate_is_taken_in_random_orders_too(model):
    nats = rate(model, torch.randn(4, K, D), model.unconditioned(4), 0.3)
    assert nats.shape == (4, K) and nats.isfinite().all()


def test_one_scale_keeps_the_proportions_of_deviations():
    model = model_of(scaling="whole")
    std = torch.tensor([0.1, 1.0, 2.0]).expand(K, D).contiguous()
    model.set_statistics(torch.zeros(K, D), std)
    tokens = torch.randn(500, K, D) * std
    standard = model.standardise(tokens)
    assert standard.square().mean().sqrt().item() == pytest.approx(1, rel=0.05)
    ratio = standard[..., 2].std() / standard[..., 0].std()
    assert ratio.item() == pytest.approx(20, rel=0.1)
    torch.testing.assert_close(model.restore(standard), tokens)


def test_what_random_orders_cannot_do_is_refused(model):
    with pytest.raises(ValueError, match=r"draws all 5 tokens, .* got prefix 2"):
        model.generate(model.unconditioned(1), prefix=2)
    with pytest.raises(ValueError, match="random orders goes on from no tokens"):
        tokens = torch.zeros(1, 2, model.config.token_dim)
        model.generate(model.unconditioned(1), first=tokens)
    with pytest.raises(ValueError, match="in_trunk takes tokens in the order given"):
        ARConfig(order="random", head="in_trunk", condition="none")

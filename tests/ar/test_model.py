"""The AR model: it never looks ahead, and sampling with a cache is sampling without one."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from ar import ARConfig, ARModel, Condition, Sampling
from ar.sampling import row_noise
from ar.trunk import see_before
from orderer.flow import euler, guide, uniform_times

ROUNDING = {"atol": 2e-5, "rtol": 0.0}


@pytest.fixture
def condition(tiny_ar: ARModel) -> Condition:
    """Captions of five and of three word pieces."""
    keep = torch.arange(5) < torch.tensor([[5], [3]])
    return tiny_ar.conditioned_on_text(torch.randn(2, 5, 16), keep)


def row(condition: Condition, index: int) -> Condition:
    return condition.rows(torch.tensor([index]))


def sampled_without_cache(
    model: ARModel, condition: Condition, noise: Tensor, scales: tuple[float, float], steps: int
) -> Tensor:
    """The reference: for every token whole passes of the trunk, one for each kind of row."""
    null = model.unconditioned(len(noise))
    tokens, times = noise[:, :0], uniform_times(steps)
    for k in range(noise.shape[1]):
        states = (
            model.trunk(tokens, condition)[:, -1],
            model.trunk(tokens, null)[:, -1],
            model.trunk(torch.zeros_like(tokens), condition)[:, -1],
        )

        def velocity(x: Tensor, step: int, states: tuple[Tensor, ...] = states) -> Tensor:
            clock = torch.full((len(x),), 1_000 * times[step])
            whole, *without = (model.head.net(x, clock, each) for each in states)
            pushed = (guide(whole, each, s) for each, s in zip(without, scales, strict=True))
            return (sum(pushed) - whole - x) / (1 - times[step])

        token = euler(velocity, noise[:, k], times)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
    return model.restore(tokens)


@torch.no_grad()
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("scales", [(1.0, 1.0), (2.5, 1.0), (1.0, 3.0), (2.5, 3.0)])
def test_cached_sampling_is_uncached_sampling(
    tiny_ar: ARModel, condition: Condition, scales: tuple[float, float], cache: Any
) -> None:
    tiny_ar.set_statistics(torch.randn(4, 6), 1 + torch.rand(4, 6))
    tiny_ar.config.context_drop = 0.1
    guidance_scale, context_scale = scales
    sampling = Sampling(
        guidance_scale=guidance_scale, context_scale=context_scale, steps=3, cache=cache
    )
    cached = tiny_ar.generate(condition, sampling=sampling, seeds=[3, 4])
    noise = row_noise([3, 4], (4, 1, 6), torch.device("cpu"))[:, :, 0]
    uncached = sampled_without_cache(tiny_ar, condition, noise, scales, steps=3)
    assert cached.std() > 0.1
    torch.testing.assert_close(cached, uncached, **ROUNDING)


@torch.no_grad()
def test_prefill_and_steps_are_one_full_pass(tiny_ar: ARModel, condition: Condition) -> None:
    trunk, tokens = tiny_ar.trunk, torch.randn(2, 3, 6)
    x = torch.cat([condition.states, trunk.sequence(tokens)], dim=1)
    places = trunk.places(5, 4)
    keep = torch.nn.functional.pad(condition.keep, (0, 4), value=True)
    cache = DynamicCache(config=trunk.decoder.config)
    states = [trunk.run(x[:, :7], see_before(keep[:, :7], 7), places[:7], cache).last_hidden_state]
    for n in (7, 8):
        mask = see_before(keep[:, : n + 1], 1)
        step = trunk.run(x[:, n : n + 1], mask, places[n : n + 1], cache)
        states.append(step.last_hidden_state)
    torch.testing.assert_close(
        torch.cat(states, dim=1)[:, 5:], trunk(tokens, condition), **ROUNDING
    )


def test_a_state_never_sees_its_own_token_or_later_ones(
    tiny_ar: ARModel, condition: Condition
) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    states = tiny_ar(tokens, row(condition, 0))
    for k in range(4):
        (gradient,) = torch.autograd.grad(states[0, k].sum(), tokens, retain_graph=True)
        reached = gradient[0].abs().sum(dim=-1).gt(0).tolist()
        assert reached == [i < k for i in range(4)]


def test_changing_a_token_leaves_earlier_states_alone(
    tiny_ar: ARModel, condition: Condition
) -> None:
    tokens = torch.randn(2, 4, 6)
    before = tiny_ar(tokens, condition)
    tokens[:, 1] += 1
    after = tiny_ar(tokens, condition)
    assert torch.equal(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2:], before[:, 2:], atol=1e-3)


@torch.no_grad()
def test_padding_a_condition_changes_nothing(tiny_ar: ARModel, condition: Condition) -> None:
    padded, tokens = row(condition, 1), torch.randn(1, 4, 6)
    short = Condition(states=padded.states[:, :3], keep=padded.keep[:, :3])
    torch.testing.assert_close(tiny_ar(tokens, padded), tiny_ar(tokens, short), **ROUNDING)
    torch.testing.assert_close(
        tiny_ar.generate(padded, seeds=[0]),
        tiny_ar.generate(short, seeds=[0]),
        **ROUNDING,
    )


@torch.no_grad()
def test_what_stands_in_the_padding_changes_nothing(tiny_ar: ARModel, condition: Condition) -> None:
    tokens = torch.randn(2, 4, 6)
    states = torch.where(condition.keep[..., None], condition.states, 100.0)
    other = Condition(states=states, keep=condition.keep)
    torch.testing.assert_close(tiny_ar(tokens, other), tiny_ar(tokens, condition), **ROUNDING)


@torch.no_grad()
def test_rows_of_a_batch_do_not_see_each_other(tiny_ar: ARModel, condition: Condition) -> None:
    tokens = torch.randn(2, 4, 6)
    alone = torch.cat([tiny_ar(tokens[i : i + 1], row(condition, i)) for i in range(2)])
    torch.testing.assert_close(tiny_ar(tokens, condition), alone, **ROUNDING)


@torch.no_grad()
def test_a_first_token_has_no_context_to_be_guided_by(
    tiny_ar: ARModel, condition: Condition
) -> None:
    tiny_ar.config.context_drop = 0.1

    def drawn(context_scale: float) -> Tensor:
        sampling = Sampling(context_scale=context_scale, steps=2)
        return tiny_ar.generate(condition, sampling=sampling, seeds=[0, 1])

    plain, guided = drawn(1.0), drawn(4.0)
    torch.testing.assert_close(guided[:, 0], plain[:, 0], **ROUNDING)
    assert ((guided - plain).abs().amax(dim=(0, 2))[1:] > 1e-2).all()


def test_some_images_are_learned_without_looking_back(
    tiny_ar: ARModel, condition: Condition
) -> None:
    tiny_ar.set_statistics(torch.randn(4, 6), 1 + torch.rand(4, 6))
    tiny_ar.config.context_drop = 0.5
    tokens, context = torch.randn(2, 200, 4, 6)
    context.requires_grad_()
    many = condition.rows(torch.zeros(200).long())

    def seen() -> Tensor:
        """Of each image, the tokens that the loss looks back at."""
        (gradient,) = torch.autograd.grad(
            tiny_ar.loss(tokens, many, context=context).sum(), context
        )
        return (gradient != 0).all(dim=2)

    assert seen()[:, :-1].all()  # in eval mode all of them
    tiny_ar.train()
    found = seen()[:, :-1]
    assert torch.equal(found.any(dim=1), found.all(dim=1))
    assert 70 < found.all(dim=1).sum() < 130


def test_what_is_not_looked_back_at_is_the_mean_without_noise(tiny_ar: ARModel) -> None:
    tiny_ar.config.context_drop, tiny_ar.config.context_noise = 1 - 1e-9, 9.0
    tokens = torch.randn(50, 4, 6)
    assert (tiny_ar._looked_back_at(tokens, None) == 0).all()  # standardised: as it is drawn by
    tiny_ar.config.context_drop = 0.0
    assert (tiny_ar._looked_back_at(tokens, None) - tokens).std() > 1


@torch.no_grad()
@pytest.mark.parametrize("name", ["guidance_scale", "context_scale"])
def test_a_guidance_scale_of_one_is_no_guidance(
    tiny_ar: ARModel, condition: Condition, name: str
) -> None:
    tiny_ar.config.context_drop = 0.1

    def drawn(scale: float) -> Tensor:
        sampling = replace(Sampling(guidance_scale=1.0, steps=2), **{name: scale})
        return tiny_ar.generate(condition, sampling=sampling, seeds=[0, 1])

    torch.testing.assert_close(drawn(1.0), drawn(1 + 1e-6), atol=1e-4, rtol=0)
    assert not torch.allclose(drawn(1.0), drawn(2.0), atol=1e-3)


@torch.no_grad()
def test_a_dropped_condition_is_no_condition(tiny_ar: ARModel, condition: Condition) -> None:
    tokens = torch.randn(2, 4, 6)
    states = tiny_ar(tokens, tiny_ar.drop(condition, torch.tensor([True, False])))
    none = tiny_ar(tokens, tiny_ar.unconditioned(2))
    torch.testing.assert_close(states[0], none[0], **ROUNDING)
    torch.testing.assert_close(states[1], tiny_ar(tokens, condition)[1], **ROUNDING)


@torch.no_grad()
def test_the_condition_is_heard(tiny_ar: ARModel, condition: Condition) -> None:
    tokens = torch.randn(2, 4, 6)
    heard = tiny_ar(tokens, condition)
    assert (heard - tiny_ar(tokens, tiny_ar.unconditioned(2))).abs().max() > 1e-2


@torch.no_grad()
def test_a_prefix_of_the_samples_has_its_length(tiny_ar: ARModel, condition: Condition) -> None:
    for prefix in (1, 3):
        assert tiny_ar.generate(condition, prefix=prefix, sampling=Sampling(steps=1)).shape == (
            2,
            prefix,
            6,
        )


def test_restoring_undoes_standardising(tiny_ar: ARModel) -> None:
    tokens = 3 + 2 * torch.randn(500, 4, 6)
    tiny_ar.set_statistics(tokens.mean(dim=0), tokens.std(dim=0, correction=0))
    standard = tiny_ar.standardise(tokens)
    torch.testing.assert_close(standard.mean(dim=0), torch.zeros(4, 6), atol=1e-5, rtol=0)
    torch.testing.assert_close(standard.std(dim=0, correction=0), torch.ones(4, 6))
    torch.testing.assert_close(tiny_ar.restore(standard), tokens)


def test_classes_differ() -> None:
    model = ARModel(
        ARConfig(
            tokens=2,
            token_dim=3,
            width=16,
            heads=2,
            layers=1,
            condition="class",
            class_names=["cat", "dog"],
        )
    )
    condition = model.conditioned_on_class(torch.tensor([0, 1, 0]))
    states = model(torch.zeros(3, 2, 3), condition)
    assert torch.equal(states[0], states[2]) and not torch.allclose(states[0], states[1])


def test_the_loss_reaches_every_parameter(tiny_ar: ARModel, condition: Condition) -> None:
    half = tiny_ar.drop(condition, torch.tensor([True, False]))
    tiny_ar.loss(torch.randn(2, 4, 6), half).sum().backward()
    for name, parameter in tiny_ar.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_channel_that_never_varies_is_refused(tiny_ar: ARModel) -> None:
    std = torch.ones(4, 6)
    std[2, 3] = 0
    with pytest.raises(ValueError, match="a token channel has a deviation of 0"):
        tiny_ar.set_statistics(torch.zeros(4, 6), std)


@pytest.mark.parametrize("prefix", [0, 5])
def test_a_prefix_outside_the_sequence_is_refused(
    tiny_ar: ARModel, condition: Condition, prefix: int
) -> None:
    with pytest.raises(ValueError, match=rf"prefix must lie in 1..4, got {prefix}"):
        tiny_ar.generate(condition, prefix=prefix)


def test_a_condition_of_another_kind_is_refused(tiny_ar: ARModel) -> None:
    with pytest.raises(ValueError, match="has the condition 'text', not 'class'"):
        tiny_ar.conditioned_on_class(torch.tensor([0]))


def test_a_caption_longer_than_the_context_is_refused(tiny_ar: ARModel) -> None:
    with pytest.raises(ValueError, match="reads 40 word pieces, got 41"):
        tiny_ar.conditioned_on_text(torch.randn(1, 41, 16), torch.ones(1, 41, dtype=torch.bool))


def test_tokens_of_another_orderer_are_refused(tiny_ar: ARModel) -> None:
    tiny_ar.config.orderer_hash = "a" * 64
    tiny_ar.check_orderer("a" * 64)
    with pytest.raises(ValueError, match="tokens of orderer aaaaaaaaaaaa, not of orderer bbbb"):
        tiny_ar.check_orderer("b" * 64)

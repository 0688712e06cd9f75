"""How stage 2 reaches the tokens: alignment, junction, routes, rate."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ar import ARModel
from ar.joint import Junction, Limits, Route, TrunkAlignment, broken, own_loss, rate
from ar.joint.rate import LEAST_SNR


def test_an_alignment_of_a_prefix_sees_its_tokens_and_no_later_ones(tiny_ar: ARModel) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    embeddings = TrunkAlignment(tiny_ar, embed_dim=8)(tiny_ar, tokens)
    assert embeddings.shape == (1, 3, 8)
    for k in range(3):
        (gradient,) = torch.autograd.grad(embeddings[0, k, 0], tokens, retain_graph=True)
        assert gradient[0].abs().sum(dim=-1).gt(0).tolist() == [i <= k for i in range(4)]


def test_aligned_embeddings_have_unit_length(tiny_ar: ARModel) -> None:
    embeddings = TrunkAlignment(tiny_ar, embed_dim=8)(tiny_ar, torch.randn(3, 4, 6))
    torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(3, 3))


def test_it_reaches_the_tokens_and_leaves_the_model_alone(tiny_ar: ARModel) -> None:
    tokens = torch.randn(3, 4, 6, requires_grad=True)
    alignment = TrunkAlignment(tiny_ar, embed_dim=8)
    alignment(tiny_ar, tokens).square().sum(dim=1).std().backward()
    assert tokens.grad is not None and bool((tokens.grad != 0).any())
    assert all(parameter.grad is not None for parameter in alignment.parameters())
    assert all(parameter.grad is None for parameter in tiny_ar.parameters())
    assert all(parameter.requires_grad for parameter in tiny_ar.parameters())


def pulled(own: Tensor, other: Tensor, **settings: float | None) -> tuple[Tensor, Junction]:
    """The gradient of tokens that stage 1 pulls by `own` and stage 2 by `other`."""
    given = torch.zeros_like(own, requires_grad=True)
    tokens = given * 1.0
    junction = Junction(tokens, **settings)
    (junction.seen * other).sum().backward()
    (tokens * own).sum().backward()
    assert given.grad is not None
    return given.grad, junction


def test_what_stage_2_asks_is_added_with_its_weight() -> None:
    own, other = torch.randn(2, 3, 4, 5).unbind(0)
    gradient, junction = pulled(own, other, weight=0.3)
    torch.testing.assert_close(gradient, own + 0.3 * other)
    assert junction.share == pytest.approx((0.3 * other.norm() / own.norm()).item())
    cosine = torch.nn.functional.cosine_similarity(own.flatten(), other.flatten(), dim=0)
    assert junction.cosine == pytest.approx(cosine.item(), abs=1e-6)


def test_a_cap_bounds_what_is_added_and_keeps_its_direction() -> None:
    own, other = torch.randn(2, 3, 4, 5).unbind(0)
    gradient, junction = pulled(own, 1e6 * other, cap=0.1)
    added = gradient - own
    assert added.norm() == pytest.approx(0.1 * own.norm().item(), rel=1e-3)
    torch.testing.assert_close(added / added.norm(), other / other.norm(), atol=1e-3, rtol=0)
    assert junction.share == pytest.approx(0.1)


def test_a_cap_leaves_alone_what_is_below_it() -> None:
    own, other = torch.randn(2, 3, 4, 5).unbind(0)
    assert torch.equal(pulled(own, other / 100, cap=0.5)[0], own + other / 100)


def test_without_stage_2_the_gradient_is_stage_1s_own() -> None:
    tokens = torch.zeros(2, 3, 4, requires_grad=True)
    shown = tokens * 1.0
    Junction(shown)
    shown.sum().backward()
    assert tokens.grad is not None and bool((tokens.grad == 1).all())


@pytest.mark.parametrize("settings", [{"weight": -1.0}, {"cap": -0.1}])
def test_a_weight_or_cap_below_0_is_refused(settings: dict[str, float]) -> None:
    (value,) = settings.values()
    with pytest.raises(ValueError, match=f"must be at least 0, got {value}$"):
        Junction(torch.zeros(1, 1, 1, requires_grad=True) * 1.0, **settings)


@pytest.mark.parametrize(
    ("route", "reached"),
    [
        ("frozen", [0, 0, 0, 0]),
        ("align", [0, 0, 0, 0]),
        ("context", [1, 1, 1, 0]),  # nothing looks back at the last token
        ("full", [1, 1, 1, 1]),
    ],
)
def test_the_ar_loss_reaches_the_tokens_that_a_route_lets_it(
    route: Route, reached: list[int], tiny_ar: ARModel
) -> None:
    tokens = torch.randn(3, 4, 6, requires_grad=True)
    targets = torch.randn(3, 4, 6)
    own_loss(route, tiny_ar, tokens, tiny_ar.unconditioned(3), targets).sum().backward()
    found = torch.zeros(4) if tokens.grad is None else tokens.grad.abs().sum(dim=(0, 2))
    assert found.gt(0).int().tolist() == reached
    assert all(p.grad is not None for p in tiny_ar.head.parameters())


def test_the_context_route_without_targets_is_refused(tiny_ar: ARModel) -> None:
    with pytest.raises(ValueError, match="tokens of an averaged orderer, got none"):
        own_loss("context", tiny_ar, torch.randn(1, 4, 6), tiny_ar.unconditioned(1))


def knows(deviation: float) -> Callable[..., Tensor]:
    """A head that knows that all channels are independent and normal: its guess is the best."""

    def guess_through(
        trunk: object,
        tokens: Tensor,
        context: Tensor,
        condition: object,
        t: Tensor,
        generator: torch.Generator | None,
    ) -> Tensor:
        t = t[..., None]
        noise = torch.randn(len(t), *tokens.shape, generator=generator)
        x = t * tokens + (1 - t) * noise
        return t * deviation**2 * x / ((t * deviation) ** 2 + (1 - t) ** 2)

    return guess_through


@pytest.mark.parametrize("deviation", [1.0, 0.1])
def test_the_rate_of_normal_tokens_is_their_information(
    deviation: float, tiny_ar: ARModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_ar.head, "guess_through", knows(deviation))
    generator = torch.Generator().manual_seed(0)
    tokens = deviation * torch.randn(20_000, 4, 6, generator=generator)
    nats = rate(tiny_ar, tokens, tiny_ar.unconditioned(len(tokens)), 0.2, generator)
    expected = 6 / 2 * math.log(1 + (deviation / 0.2) ** 2)
    assert nats.mean().item() == pytest.approx(expected, rel=0.02)


def test_a_rate_pulls_at_every_token_and_at_the_model(tiny_ar: ARModel) -> None:
    tokens = torch.randn(3, 4, 6, requires_grad=True)
    rate(tiny_ar, tokens, tiny_ar.unconditioned(3), 0.2).sum().backward()
    assert tokens.grad is not None and bool((tokens.grad.abs().sum(dim=(0, 2)) > 0).all())
    assert all(p.grad is not None for p in tiny_ar.head.parameters())


@pytest.mark.parametrize("noise", [0.0, LEAST_SNR**-0.5])
def test_a_rate_needs_noise_in_range(noise: float, tiny_ar: ARModel) -> None:
    with pytest.raises(ValueError, match=f"above 0 and below 100, got {noise}"):
        rate(tiny_ar, torch.randn(1, 4, 6), tiny_ar.unconditioned(1), noise)


def test_statistics_follow_the_tokens(tiny_ar: ARModel) -> None:
    tokens = 3 + 2 * torch.randn(64, 4, 6)
    tiny_ar.follow_statistics(tokens, 0.25)
    torch.testing.assert_close(tiny_ar.mean, 0.25 * tokens.mean(dim=0))
    torch.testing.assert_close(tiny_ar.std, 0.75 + 0.25 * tokens.std(dim=0, correction=0))
    tiny_ar.follow_statistics(tokens, 1.0)
    tiny_ar.check_statistics(tokens)


START = {"rank": 10.0, "deviation": 1.0, "recall": 0.5, "psnr": 20.0}


@pytest.mark.parametrize(
    ("name", "good", "bad", "sentence"),
    [
        ("rank", 8.0, 7.9, "rank is 7.90, under 80% of the 10.00 that it began with"),
        ("deviation", 0.5, 0.4, "deviation is 0.40, under 50% of the 1.00 that it began with"),
        ("recall", 0.41, 0.39, "recall is 0.39, more than 0.1 below the 0.5 that it began with"),
        ("psnr", 19.0, 18.9, "psnr is 18.9, more than 1 below the 20 that it began with"),
    ],
)
def test_a_limit_is_broken_by_what_is_beyond_it(
    name: str, good: float, bad: float, sentence: str
) -> None:
    assert broken(START, {**START, name: good}, Limits()) is None
    assert broken(START, {**START, name: bad}, Limits()) == sentence
    assert broken(START, {**START, name: math.nan}, Limits()) is not None


def test_a_limit_below_0_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the limit of rank must be at least 0, got -0\.1"):
        Limits(rank=-0.1)


def test_a_trunk_never_reads_the_last_token(tiny_ar: ARModel) -> None:
    """So a probe of its states ends at the last but one."""
    context = torch.randn(3, 4, 6, requires_grad=True)
    condition = tiny_ar.unconditioned(3)
    loss = tiny_ar.loss(context.detach(), condition, context=context).sum()
    (gradient,) = torch.autograd.grad(loss, context)
    reached = gradient.abs().sum(dim=(0, 2)).gt(0).tolist()
    assert reached == [True, True, True, False]

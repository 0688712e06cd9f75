"""Every head: it learns what it is shown, and where it has a density, that is the exact one."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import energy_distance
from torch import Tensor
from torch.distributions import MultivariateNormal

from ar import ARConfig, Sampling
from ar.heads import CategoricalHead, MixtureHead, RegressionHead, Seen, make_head
from ar.heads.head import StateHead, chosen
from ar.heads.likelihood import log_density

FLOOR = 0.1
SIZES = {"tokens": 4, "token_dim": 2, "width": 8, "heads": 2, "head_width": 64, "head_layers": 2}
HEADS: dict[str, dict[str, Any]] = {
    "flow": {"timestep_location": 0.0},
    "flow-velocity": {"prediction": "velocity", "timestep_location": 0.0},
    "flow-noise": {"prediction": "noise", "timesteps": "uniform"},
    "flow-token": {"modulation": "token", "timesteps": "laplace", "timestep_location": 1.0},
    "diffusion": {"prediction": "noise"},
    "diffusion-velocity": {"prediction": "velocity", "weighting": "min_snr"},
    "mixture": {"components": 24},
    "energy": {"noise_channels": 8},
    "categorical": {"codes": 128},
    "regression": {},
}


VARIANTS = ("flow-velocity", "flow-noise", "diffusion-velocity")
"""Of heads that are there in another form."""


def make(name: str) -> StateHead:
    head = make_head(ARConfig(**{**SIZES, **HEADS[name], "head": name.partition("-")[0]}))
    assert isinstance(head, StateHead)
    return head


def moons(labels: Tensor) -> Tensor:
    """Points on one of two interleaved half circles, by their label, a little blurred."""
    angle = math.pi * torch.rand(len(labels))
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    points = torch.where(labels[:, None] == 0, upper, lower)
    return (points - torch.tensor([0.5, 0.25])) / 0.6 + 0.08 * torch.randn(len(labels), 2)


def far(a: Tensor, b: Tensor) -> float:
    """The energy distance of the two, the mean over 12 directions in the plane."""
    angles = torch.arange(12) * math.pi / 12
    directions = torch.stack([angles.cos(), angles.sin()], dim=1)
    each = [energy_distance((a @ d).numpy(), (b @ d).numpy()) for d in directions]
    return float(np.mean(each))


def states_of(labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, 8).float()


@cache
@cache
def trained_on_moons(name: str, steps: int = 400) -> StateHead:
    torch.manual_seed(0)
    head = make(name)
    head.fit(moons(torch.arange(4_000) % 2)[:, None])
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        labels = torch.randint(0, 2, (256,))
        loss = head.loss(moons(labels), states_of(labels)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return head.eval()


@torch.no_grad()
def drawn(head: StateHead, states: Tensor, seed: int = 0, **how: Any) -> Tensor:
    sampling = Sampling(**{"guidance_scale": 1.0, "steps": 25, **how})
    random = torch.Generator().manual_seed(seed)
    noise = torch.randn(len(states), *head.noise_shape(sampling), generator=random)
    return head.drawing(sampling)(Seen(states=states), noise)


BOUND = 0.13
"""Of the energy distance: two samples of the same moon are 0.02 apart, the two moons 0.7, a moon
and the Gaussian of its moments 0.18."""


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.long] if name in VARIANTS else [])
        for name in HEADS
        if name != "regression"
    ],
)
def test_a_head_recovers_two_moons(name: str) -> None:
    head = trained_on_moons(name)
    for label in (0, 1):
        labels = torch.full((2_000,), label)
        assert far(drawn(head, states_of(labels)), moons(labels)) < BOUND


def test_the_yardstick_of_the_moons_tells_a_gaussian_from_a_moon() -> None:
    one = moons(torch.zeros(4_000).long())
    assert far(one, moons(torch.zeros(4_000).long())) < 0.08
    assert far(one, moons(torch.ones(4_000).long())) > 0.5
    alike = MultivariateNormal(one.mean(dim=0), one.T.cov()).sample((4_000,))
    assert far(one, alike) > 1.3 * BOUND


def test_squared_error_knows_the_middle_of_a_moon_and_nothing_else() -> None:
    head = trained_on_moons("regression")
    labels = torch.zeros(2_000).long()
    found = drawn(head, states_of(labels))
    assert found.std(dim=0).max() < 1e-6
    torch.testing.assert_close(found[0], moons(labels).mean(dim=0), atol=0.15, rtol=0)
    assert far(found, moons(labels)) > 3 * BOUND


@pytest.mark.parametrize("solver", ["heun", "multistep", "sde"])
def test_solvers_agree_on_the_distribution(solver: Any) -> None:
    head = trained_on_moons("flow")
    labels = torch.zeros(4_000).long()
    assert far(drawn(head, states_of(labels), solver=solver), moons(labels)) < BOUND


def gaussian() -> MultivariateNormal:
    root = torch.randn(3, 3).double()
    return MultivariateNormal(torch.randn(3).double(), root @ root.T + 0.05 * torch.eye(3))


def test_the_density_of_the_exact_flow_of_a_gaussian_is_its_own() -> None:
    law = gaussian()
    variance = law.covariance_matrix

    def guess(x: Tensor, t: float) -> Tensor:
        """The mean of the data given a point of the path."""
        of_x = t**2 * variance + (1 - t) ** 2 * torch.eye(3)
        return law.mean + t * (x - t * law.mean) @ torch.linalg.solve(of_x, variance).T.mT

    blurred = MultivariateNormal(law.mean, variance + FLOOR**2 * torch.eye(3))
    x = blurred.sample((50,))
    torch.testing.assert_close(log_density(guess, x, FLOOR), blurred.log_prob(x), atol=1e-2, rtol=0)


def test_in_many_channels_the_density_is_estimated_without_bias() -> None:
    channels = 40
    root = torch.randn(channels, channels).double() / channels**0.5
    variance = root @ root.T + 0.1 * torch.eye(channels)
    values, vectors = torch.linalg.eigh(variance)  # no probe is exact: channels are correlated

    def guess(x: Tensor, t: float) -> Tensor:
        share = t * values / (t**2 * values + (1 - t) ** 2)
        return (x @ vectors * share) @ vectors.T

    law = MultivariateNormal(
        torch.zeros(channels).double(), variance + FLOOR**2 * torch.eye(channels)
    )
    x = law.sample((400,))
    wrong = log_density(guess, x, FLOOR, torch.Generator().manual_seed(0)) - law.log_prob(x)
    assert wrong.std() > 0.3  # each row has an error of its own
    assert abs(wrong.mean()) < 3 * wrong.std() / 20


def test_a_mixture_of_one_is_a_gaussian() -> None:
    head = make_head(ARConfig(**{**SIZES, "head": "mixture", "components": 1}))
    assert isinstance(head, MixtureHead)
    torch.nn.init.normal_(head.net.out.weight)
    states, x = torch.randn(20, 8), torch.randn(20, 2)
    _, mean, deviation = head.mixture(states)
    law = torch.distributions.Normal(mean[:, 0], deviation[:, 0])
    torch.testing.assert_close(
        head.log_prob(x, states, 0.0), law.log_prob(x).sum(dim=1), atol=1e-4, rtol=1e-5
    )


@torch.no_grad()
def test_a_mixture_is_that_of_torch() -> None:
    head = make("mixture")
    assert isinstance(head, MixtureHead)
    torch.nn.init.normal_(head.net.out.weight)
    states, x = torch.randn(20, 8), torch.randn(20, 2)
    shares, mean, deviation = head.mixture(states)
    each = torch.distributions.Independent(torch.distributions.Normal(mean, deviation), 1)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=shares), each
    )
    torch.testing.assert_close(head.log_prob(x, states, 0.0), law.log_prob(x), atol=1e-4, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("floor", [0.0, 0.5])
@pytest.mark.parametrize("name", ["mixture", "categorical", "regression"])
def test_a_density_adds_up_to_one(name: str, floor: float) -> None:
    head = make(name)
    head.fit(torch.randn(500, 1, 2))
    states = torch.randn(1, 8)
    side = torch.linspace(-8, 8, 801)
    grid = torch.cartesian_prod(side, side)
    density = torch.cat(
        [
            head.log_prob(some, states.expand(len(some), -1), floor).exp()
            for some in grid.split(50_000)
        ]
    )
    assert (density.sum() * (16 / 800) ** 2).item() == pytest.approx(1, abs=2e-3)


@torch.no_grad()
def test_a_trained_flow_scores_its_own_tokens_as_high_as_the_mixture_does() -> None:
    labels = torch.arange(400) % 2
    x = moons(labels) + FLOOR * torch.randn(400, 2)
    found = {}
    for name in ("flow", "mixture", "regression"):
        with torch.enable_grad():
            head = trained_on_moons(name)
        found[name] = head.log_prob(x, states_of(labels), FLOOR).mean().item()
    assert abs(found["flow"] - found["mixture"]) < 0.25
    assert found["flow"] > found["regression"] + 0.4


@torch.no_grad()
def test_the_gaussian_of_a_regression_is_the_data_s_own() -> None:
    with torch.enable_grad():
        head = trained_on_moons("regression")
    assert isinstance(head, RegressionHead)
    labels = torch.zeros(4_000).long()
    x = moons(labels)
    law = torch.distributions.Normal(x.mean(dim=0), x.std(dim=0))
    expected = law.log_prob(x).sum(dim=1).mean().item()
    assert head.log_prob(x, states_of(labels), FLOOR).mean().item() == pytest.approx(
        expected, abs=0.15
    )


def test_what_a_regression_asks_of_tokens_is_its_squared_error_alone() -> None:
    head = make("regression")
    assert isinstance(head, RegressionHead)
    tokens, states = torch.randn(5, 2, requires_grad=True), torch.randn(5, 8)
    head.loss(tokens, states).sum().backward()
    torch.testing.assert_close(tokens.grad, (tokens - head.net(states)).detach())  # of 2 channels


@torch.no_grad()
def test_the_density_of_tight_codes_is_that_of_fp64() -> None:
    head = make("categorical")
    assert isinstance(head, CategoricalHead)
    centres = torch.randn(128, 2)
    head.centres.copy_(centres)
    head.deviation.fill_(1e-3)
    tokens, states = centres[:50] + 1e-3 * torch.randn(50, 2), torch.randn(50, 8)
    share = head.net(states).double().log_softmax(dim=-1)
    far = (tokens.double()[:, None] - centres.double()).square().sum(dim=-1) / 1e-6
    known = (share - far / 2).logsumexp(dim=-1) - 2 * math.log(1e-3) - math.log(2 * math.pi)
    torch.testing.assert_close(
        head.log_prob(tokens, states, 0.0).double(), known, atol=2e-2, rtol=0
    )


@torch.no_grad()
def test_codes_are_the_nearest_centres() -> None:
    head = make("categorical")
    assert isinstance(head, CategoricalHead)
    x = torch.randn(300, 1, 2)
    head.fit(x)
    codes = head.codes(x)
    away = (x[:, 0, None] - head.centres).square().sum(dim=-1)
    assert torch.equal(codes[:, 0], away.argmin(dim=1))
    assert len(codes.unique()) > 100


def test_more_codes_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="128 codes need as many tokens, got 50"):
        make("categorical").fit(torch.randn(50, 1, 2))


def test_a_head_without_a_density_says_so() -> None:
    with pytest.raises(ValueError, match="the head 'energy' has no likelihood"):
        make("energy").log_prob(torch.randn(1, 2), torch.randn(1, 8), FLOOR)


def test_choices_come_as_often_as_their_shares() -> None:
    shares = torch.tensor([0.5, 0.2, 0.0, 0.3])
    found = chosen(shares.expand(20_000, 4), torch.randn(20_000))
    torch.testing.assert_close(
        torch.bincount(found, minlength=4) / 20_000, shares, atol=0.01, rtol=0
    )


@pytest.mark.parametrize("name", HEADS)
def test_a_row_is_drawn_from_its_own_state_and_noise(name: str) -> None:
    head = make(name).eval()
    head.fit(torch.randn(500, 1, 2))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    states = torch.randn(6, 8)
    together = drawn(head, states, steps=5)
    sampling = Sampling(guidance_scale=1.0, steps=5)
    noise = torch.randn(6, *head.noise_shape(sampling), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        alone = [
            head.drawing(sampling)(Seen(states=states[i : i + 1]), noise[i : i + 1])
            for i in range(6)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


GUIDED = [name for name in HEADS if name not in ("categorical", "mixture")]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name in VARIANTS else []) for name in GUIDED],
)
def test_guidance_moves_a_token_away_from_the_unguided_one(name: str) -> None:
    head = trained_on_moons(name)
    labels = torch.zeros(500).long()
    sampling = Sampling(guidance_scale=3.0, steps=10)
    noise = torch.randn(500, *head.noise_shape(sampling))
    seen = Seen(states=states_of(labels), without=(states_of(labels + 1),), scales=(3.0,))
    with torch.no_grad():
        guided = head.drawing(sampling)(seen, noise).mean(dim=0)
    plain, other = (drawn(head, states_of(labels + i)).mean(dim=0) for i in (0, 1))
    away = plain - other
    assert (guided - plain) @ away > 0.1 * away @ away


@torch.no_grad()
def test_guidance_of_a_mixture_takes_candidates_that_the_condition_makes_likelier() -> None:
    with torch.enable_grad():
        head = trained_on_moons("mixture")
    assert isinstance(head, MixtureHead)
    states, other = states_of(torch.zeros(500).long()), states_of(torch.ones(500).long())
    sampling = Sampling(guidance_scale=2.0)
    noise = torch.randn(500, *head.noise_shape(sampling))
    draw = head.drawing(sampling)

    def likelier(scale: float) -> float:
        x = draw(Seen(states=states, without=(other,), scales=(scale,)), noise)
        return (head.log_prob(x, states, 0.0) - head.log_prob(x, other, 0.0)).mean().item()

    assert likelier(2.0) > likelier(1.0) + 0.2 > likelier(0.0) + 0.4

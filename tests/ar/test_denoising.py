"""Heads that denoise: what is computed once is what would be computed every time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ar import ARConfig, Sampling
from ar.heads import DenoisingHead, Seen
from ar.heads.denoisers import TokenDenoiser
from orderer.flow import euler, guide

ROUNDING = {"atol": 1e-5, "rtol": 0.0}


def make(**settings: Any) -> DenoisingHead:
    """A head of 6 channels on states of 16, its last layers awake."""
    sizes = {"tokens": 4, "token_dim": 6, "width": 16, "heads": 2, "head_width": 16}
    head = DenoisingHead(ARConfig(**{**sizes, "head_layers": 2, **settings}))
    for part in head.net.modules():
        if isinstance(part, nn.Linear) and not part.weight.any():
            nn.init.normal_(part.weight, std=0.3)
    return head.eval()


KINDS = pytest.mark.parametrize(
    "settings",
    [
        {"head": head, "prediction": prediction, "modulation": modulation}
        for head in ("flow", "diffusion")
        for prediction in ("data", "velocity", "noise")
        for modulation in ("time", "token")
    ],
    ids=lambda settings: "-".join(settings.values()),
)


def drawn(head: DenoisingHead, seen: Seen, noise: Tensor, **how: Any) -> Tensor:
    return head.drawing(Sampling(**how))(seen, noise[:, None])


@KINDS
@torch.no_grad()
def test_what_a_sampler_computes_once_is_what_each_step_computes(settings: dict[str, Any]) -> None:
    head, states, noise = make(**settings), torch.randn(5, 16), torch.randn(5, 6)
    times = head.path.times(4)

    def velocity(x: Tensor, step: int) -> Tensor:
        t = torch.full((len(x),), times[step])
        output = head.net(head.path.scale(t)[:, None] * x, head.path.clock(t), states)
        return (head.path.to_data(output, x, t[:, None]) - x) / (1 - t[:, None])

    found = drawn(head, Seen(states=states), noise, steps=4)
    torch.testing.assert_close(found, euler(velocity, noise, times), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_guided_rows_together_are_calls_apart_whose_pushes_add_up() -> None:
    head, noise = make(), torch.randn(5, 6)
    states = [torch.randn(5, 16) for _ in range(3)]
    whole, *without = states
    together = drawn(
        head, Seen(states=whole, without=(*without,), scales=(3.0, 0.5)), noise, steps=1
    )
    one, other, third = (drawn(head, Seen(states=x), noise, steps=1) for x in states)
    torch.testing.assert_close(
        together, guide(one, other, 3.0) + guide(one, third, 0.5) - one, **ROUNDING
    )


@torch.no_grad()
def test_matching_the_norm_turns_a_guided_token_without_stretching_it() -> None:
    head, noise = make(), torch.randn(5, 6)
    guided, unguided = torch.randn(5, 16), torch.randn(5, 16)
    seen = Seen(states=guided, without=(unguided,), scales=(3.0,))
    matched = drawn(head, seen, noise, steps=1, match_norm=True)
    plain = drawn(head, seen, noise, steps=1)
    without = drawn(head, Seen(states=guided), noise, steps=1)
    torch.testing.assert_close(matched.norm(dim=1), without.norm(dim=1))
    torch.testing.assert_close(
        nn.functional.cosine_similarity(matched, plain), torch.ones(5), **ROUNDING
    )


@pytest.mark.parametrize("solver", ["euler", "heun", "multistep", "sde"])
@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@torch.no_grad()
def test_every_solver_lands_on_a_token_that_is_certain(kind: str, solver: Any) -> None:
    head = make(head=kind)
    nn.init.zeros_(head.net.to_token.weight)
    nn.init.constant_(head.net.to_token.bias, 0.5)
    for steps in (1, 3):
        draw = head.drawing(Sampling(solver=solver, steps=steps))
        noise = torch.randn(5, *head.noise_shape(Sampling(solver=solver, steps=steps)))
        found = draw(Seen(states=torch.randn(5, 16)), noise)
        torch.testing.assert_close(found, torch.full((5, 6), 0.5))


def test_the_loss_of_a_constant_is_the_variance_of_the_data() -> None:
    head = make()
    nn.init.zeros_(head.net.to_token.weight)
    loss = head.loss(torch.randn(2_000, 6), torch.randn(2_000, 16)).mean()
    assert loss.item() == pytest.approx(1, abs=0.05)


def test_errors_at_a_timestep_are_those_of_each_row_alone() -> None:
    head, tokens, states = make(), torch.randn(3, 6), torch.randn(3, 16)
    t = torch.tensor([[0.2], [0.7]]).expand(2, 3)
    noise = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    together = head.errors(tokens, states, t, torch.Generator().manual_seed(0))
    for level in range(2):
        for row in range(3):
            x = torch.lerp(noise[level, row], tokens[row], t[level, row])[None]
            found = head.net(x, 1_000 * t[level, row, None], states[row, None])[0]
            expected = (found - tokens[row]).square().mean()
            torch.testing.assert_close(together[level, row], expected, atol=1e-5, rtol=1e-5)


@KINDS
def test_a_row_of_the_loss_depends_on_its_own_token_and_state(settings: dict[str, Any]) -> None:
    tokens = torch.randn(3, 6, requires_grad=True)
    states = torch.randn(3, 16, requires_grad=True)
    make(**settings).loss(tokens, states)[1].backward()
    for reached in (tokens.grad, states.grad):
        assert reached is not None
        assert reached.abs().sum(dim=1).gt(0).tolist() == [False, True, False]


def test_the_loss_is_a_function_of_its_generator() -> None:
    head, tokens, states = make(), torch.randn(3, 6), torch.randn(3, 16)

    def loss(seed: int) -> Tensor:
        return head.loss(tokens, states, torch.Generator().manual_seed(seed))

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))


def reference_of_mar(net: TokenDenoiser, x: Tensor, clock: Tensor, states: Tensor) -> Tensor:
    """MAR's head, written out row by row from its description."""
    rates = 10_000 ** -(torch.arange(128).double() / 128)
    rows = []
    for token, time, state in zip(x, clock, states, strict=True):
        first, _, second = net.time
        waves = torch.cat([torch.cos(time * rates), torch.sin(time * rates)])
        hidden = torch.sigmoid(first(waves)) * first(waves)  # SiLU
        y = second(hidden) + net.condition(state)
        y = torch.sigmoid(y) * y
        h = net.embed(token)
        for block in net.blocks:
            shift, scale, gate = block.modulate(y).chunk(3)
            normed = (h - h.mean()) / (h.var(correction=0) + 1e-6).sqrt()
            normed = normed * block.norm.weight + block.norm.bias
            inner = block.mlp[0](normed * (1 + scale) + shift)
            h = h + gate * block.mlp[2](torch.sigmoid(inner) * inner)
        shift, scale = net.modulate(y).chunk(2)
        normed = (h - h.mean()) / (h.var(correction=0) + 1e-6).sqrt()
        rows.append(net.to_token(normed * (1 + scale) + shift))
    return torch.stack(rows)


@torch.no_grad()
def test_the_form_of_mar_is_an_independent_writing_of_it() -> None:
    net = make(modulation="token").net.double()
    for block in net.blocks:
        nn.init.normal_(block.norm.weight), nn.init.normal_(block.norm.bias)
    x, states = torch.randn(5, 6).double(), torch.randn(5, 16).double()
    clock = 1_000 * torch.rand(5).double()
    torch.testing.assert_close(
        net(x, clock, states), reference_of_mar(net, x, clock, states), atol=1e-6, rtol=0
    )


def _weight_of_data(head: DenoisingHead, t: Tensor) -> Tensor:
    """The weight of an error of the data that the loss amounts to at a timestep."""
    data, noise = torch.randn(1, 6).double(), torch.randn(1, 6).double()
    x = (1 - t) * noise + t * data
    wrong = data + 0.1 * torch.randn(1, 6).double()
    perfect = head.path.target(data, noise, t)
    # What the net would have to say for its guess to be `wrong`
    noise_said = (x - t * wrong) / (1 - t)
    said = head.path.target(wrong, noise_said, t)
    own_error = (said - perfect).square().mean()
    return (head.path.weight(t) * own_error / (wrong - data).square().mean()).squeeze()


@KINDS
def test_min_snr_weighs_every_prediction_alike(settings: dict[str, Any]) -> None:
    head = make(**settings, weighting="min_snr")
    for level in (0.05, 0.3, 0.6, 0.8, 0.97):
        t = torch.tensor([level], dtype=torch.float64)
        expected = min((level / (1 - level)) ** 2, 5.0)
        torch.testing.assert_close(_weight_of_data(head, t).item(), expected)


@KINDS
def test_what_the_net_should_say_turns_back_into_the_data(settings: dict[str, Any]) -> None:
    path = make(**settings).path
    data, noise = torch.randn(9, 6).double(), torch.randn(9, 6).double()
    t = torch.linspace(0.05, 0.95, 9).double()[:, None]
    x = (1 - t) * noise + t * data
    torch.testing.assert_close(path.to_data(path.target(data, noise, t), x, t), data)


def test_the_diffusion_of_unit_data_keeps_unit_variance_and_knows_its_step() -> None:
    path = make(head="diffusion").path
    t = torch.linspace(0, 1, 11).double()
    scale = path.scale(t)
    torch.testing.assert_close(
        (scale * t).square() + (scale * (1 - t)).square(), torch.ones(11).double()
    )
    times = path.times(10)
    assert times[0] == 0 and times[-1] == 1 and sorted(times) == times
    torch.testing.assert_close(
        path.clock(torch.tensor(times, dtype=torch.float64)),
        torch.linspace(1000, 0, 11).double(),
        atol=1e-3,
        rtol=0,
    )


@torch.no_grad()
def test_weighing_timesteps_and_drawing_them_more_often_have_one_expectation() -> None:
    drawn, weighed = make(), make(timesteps="uniform", weighting="density")
    weighed.load_state_dict(drawn.state_dict())
    tokens, states = torch.randn(20_000, 6), torch.randn(20_000, 16)
    losses = [head.loss(tokens, states) for head in (drawn, weighed)]
    error = sum(loss.var() / len(loss) for loss in losses) ** 0.5
    assert abs(losses[0].mean() - losses[1].mean()) < 4 * error < 0.1 * losses[0].mean()


def test_a_density_weighs_nothing_but_uniform_timesteps_of_a_flow() -> None:
    with pytest.raises(ValueError, match="got the head 'flow' and logit_normal timesteps"):
        make(weighting="density")
    with pytest.raises(ValueError, match="got the head 'diffusion' and uniform timesteps"):
        make(head="diffusion", timesteps="uniform", weighting="density")

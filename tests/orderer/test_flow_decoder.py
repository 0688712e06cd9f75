"""The flow decoder: an order that cuts exactly, and a sampler that finds what the net knows."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from orderer import Orderer, OrdererConfig
from orderer.flow_decoder import FlowDecoder
from orderer.patches import patchify

Make = Callable[..., Orderer]
CUT = torch.tensor([[True, True, False, False]])


@pytest.fixture
def make() -> Make:
    """Makes an orderer of 4 tokens with a flow decoder whose modulations are awake."""

    def made(**settings: object) -> Orderer:
        sizes = {"image_size": 16, "patch_size": 4, "tokens": 4, "token_dim": 6, "width": 16}
        towers = {"heads": 2, "text_width": 16, "text_heads": 2, "text_layers": 1, "embed_dim": 8}
        config = OrdererConfig(
            decoder="flow", **{"decoder_steps": 3, **sizes, **towers, **settings}
        )
        orderer = Orderer(config).eval()
        nn.init.normal_(orderer.decoder.modulate.weight, std=0.1)
        nn.init.normal_(orderer.decoder.null)
        return orderer

    return made


def guess(decoder: FlowDecoder, tokens: Tensor, keep: Tensor) -> Tensor:
    """The guess from one noise at t = 0.3."""
    noisy = torch.randn(1, 16, 48, generator=torch.Generator().manual_seed(0))
    return decoder(tokens, keep, noisy, torch.tensor([0.3]))[0]


def knowing(orderer: Orderer, data: Tensor) -> None:
    """Have the decoder guess `data`, one value for all patches, whatever it is shown."""
    nn.init.zeros_(orderer.decoder.to_patch.weight)
    with torch.no_grad():
        orderer.decoder.to_patch.bias.copy_(data)


def test_a_cut_token_changes_nothing(make: Make) -> None:
    decoder, tokens = make().decoder, torch.randn(1, 4, 6)
    other = torch.cat([tokens[:, :2], torch.randn(1, 2, 6)], dim=1)
    assert torch.equal(guess(decoder, tokens, CUT), guess(decoder, other, CUT))
    assert torch.equal(decoder.decode(tokens, CUT, (4, 4)), decoder.decode(other, CUT, (4, 4)))


def test_no_gradient_reaches_a_cut_token(make: Make) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    rebuilt = make().decoder.rebuild(tokens, CUT, torch.randn(1, 16, 48), (4, 4))
    for output in rebuilt:
        (gradient,) = torch.autograd.grad(output.sum(), tokens, retain_graph=True)
        assert gradient[0].abs().sum(dim=-1).gt(0).tolist() == [True, True, False, False]


def test_decoding_a_cut_sequence_is_decoding_with_the_rest_masked(make: Make) -> None:
    orderer, tokens = make(), torch.randn(1, 4, 6)
    masked = orderer.decoder.decode(tokens, CUT, (4, 4)).clamp(-1, 1)
    assert torch.equal(patchify(orderer.decode(tokens[:, :2]), 4), masked)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_same_randomness_gives_the_same_image(make: Make, solver: str) -> None:
    orderer, tokens = make(decoder_solver=solver), torch.randn(2, 3, 6)

    def drawn(seed: int) -> Tensor:
        return orderer.decode(tokens, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))


def test_without_a_generator_decoding_repeats_itself_and_leaves_the_global_one(make: Make) -> None:
    orderer, tokens = make(), torch.randn(2, 3, 6)
    before = torch.get_rng_state()
    images = orderer.decode(tokens)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(orderer.decode(tokens), images)
    torch.testing.assert_close(orderer.decode(tokens[1:]), images[1:])  # whatever stands beside it


@pytest.mark.parametrize("size", [(16, 16), (8, 16), (24, 20)])
def test_images_of_other_sizes_and_shapes_are_drawn(make: Make, size: tuple[int, int]) -> None:
    orderer = make()
    assert orderer.decode(torch.randn(2, 3, 6), size).shape == (2, 3, *size)
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    rebuilt = orderer.rebuild(torch.randn(2, 4, 6), CUT.expand(2, 4), images)
    assert rebuilt.patches.shape == (2, size[0] * size[1] // 16, 48)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_a_net_that_knows_the_answer_draws_it_in_any_number_of_steps(
    make: Make, solver: str, steps: int
) -> None:
    orderer = make(decoder_solver=solver, decoder_steps=steps)
    answer = torch.rand(48) - 0.5
    knowing(orderer, answer)
    drawn = orderer.decoder.decode(torch.randn(2, 4, 6), CUT.expand(2, 4), (4, 4))
    torch.testing.assert_close(drawn, answer.expand(2, 16, 48))


def test_one_step_is_the_guess_at_the_start(make: Make) -> None:
    decoder, tokens = make(decoder_steps=1).decoder, torch.randn(2, 4, 6)
    keep = torch.ones(2, 4, dtype=torch.bool)
    noise = torch.randn(2, 16, 48, generator=torch.Generator().manual_seed(3))
    first = decoder(tokens, keep, noise, torch.zeros(2))[0]
    drawn = decoder.decode(tokens, keep, (4, 4), torch.Generator().manual_seed(3))
    torch.testing.assert_close(drawn, first)


def test_the_error_of_the_velocity_is_that_of_the_data_over_what_is_left(make: Make) -> None:
    tokens, keep, patches = torch.randn(1, 4, 6), CUT, torch.randn(1, 16, 48)
    orderer = make(decoder_timesteps=-1.0)

    def loss(weighting: str) -> Tensor:
        orderer.config.decoder_weighting = weighting
        generator = torch.Generator().manual_seed(5)
        return orderer.decoder.rebuild(tokens, keep, patches, (4, 4), generator).loss

    t = (torch.randn(1, generator=torch.Generator().manual_seed(5)) - 1).sigmoid()
    torch.testing.assert_close(loss("velocity"), loss("data") / (1 - t).square().squeeze())


def test_the_term_of_a_net_that_knows_the_answer_is_zero(make: Make) -> None:
    orderer, answer = make(decoder_draws=3), torch.rand(48)
    knowing(orderer, answer)
    patches = answer.expand(2, 16, 48).clone()
    rebuilt = orderer.decoder.rebuild(torch.randn(2, 4, 6), CUT.expand(2, 4), patches, (4, 4))
    assert rebuilt.loss == 0 and torch.equal(rebuilt.patches, patches)
    assert rebuilt.states.shape == (2, 16, 16)


def test_guidance_leaves_the_prediction_without_tokens(make: Make) -> None:
    orderer, tokens = make(decoder_drop=0.5, decoder_steps=1), torch.randn(2, 4, 6)

    def drawn(scale: float, keep: bool) -> Tensor:
        orderer.config.decoder_guidance = scale
        return orderer.decoder.decode(tokens, torch.full((2, 4), keep), (4, 4))

    conditional, unconditional = drawn(1.0, True), drawn(1.0, False)
    wanted = unconditional + 2.5 * (conditional - unconditional)
    torch.testing.assert_close(drawn(2.5, True), wanted, atol=1e-5, rtol=0)


def test_all_draws_without_tokens_reach_no_token(make: Make) -> None:
    tokens = torch.randn(1, 4, 6).requires_grad_()
    rebuilt = make(decoder_drop=1.0).decoder.rebuild(tokens, CUT, torch.randn(1, 16, 48), (4, 4))
    rebuilt.loss.backward()
    assert not tokens.grad.any()


def test_the_term_reaches_every_parameter(make: Make) -> None:
    decoder = make(decoder_draws=2).decoder
    decoder.rebuild(torch.randn(1, 4, 6), CUT, torch.randn(1, 16, 48), (4, 4)).loss.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


def test_a_saved_orderer_draws_the_same_bits(make: Make, tmp_path: Path) -> None:
    orderer, tokens = make(), torch.randn(2, 3, 6)
    orderer.save_pretrained(tmp_path)
    assert torch.equal(Orderer.from_pretrained(tmp_path).decode(tokens), orderer.decode(tokens))


def test_fifty_steps_learn(make: Make) -> None:
    decoder = make(decoder_draws=2).decoder.train()
    tokens, patches = torch.randn(4, 4, 6), torch.randn(4, 1, 48).expand(4, 16, 48).clone()
    keep = torch.ones(4, 4, dtype=torch.bool)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=5e-3)

    def error() -> float:
        with torch.no_grad():
            return (decoder.decode(tokens, keep, (4, 4)) - patches).square().mean().item()

    before = error()
    for _ in range(50):
        optimizer.zero_grad()
        decoder.rebuild(tokens, keep, patches, (4, 4)).loss.backward()
        optimizer.step()
    assert error() < 0.5 * before


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"decoder_drop": 1.5}, r"decoder_drop must lie in 0..1, got 1.5"),
        ({"decoder_guidance": 2.0}, r"decoder_guidance needs a decoder_drop above 0.*got 2.0"),
        ({"decoder_steps": 0}, r"decoder_steps must be at least 1, got 0"),
        ({"decoder_solver": "rk4"}, r"decoder_solver must be one of 'euler', 'heun', got 'rk4'"),
    ],
)
def test_what_no_flow_decoder_can_do_is_refused(
    make: Make, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        make(**settings)

"""What tokens cost, by the guesses of the model or of a Gaussian, whichever knows more."""

import math

import pytest
import torch

from ar.joint import DrawnErrors
from recipes.rating import STRETCHES, nats_of, shrunk

IMAGES, K, D = 4000, 2, 3
NOISE = 0.2


def drawn(places: torch.Tensor, factor: torch.Tensor) -> list[DrawnErrors]:
    """Normal tokens, and a model whose errors are so many times those of the plain guess."""
    low, high = math.log(1e-4), -2 * math.log(NOISE)
    snr = (low + (high - low) * places).exp()
    plain = D * snr / (1 + snr) * torch.ones(1, 1, K)
    least = torch.full((places.shape[1], K), D * 1e-4 / 2)
    errors = DrawnErrors(
        place=places, weighed=factor * plain, plain=plain, span=high - low, least=least
    )
    return [errors]


@pytest.fixture
def places() -> torch.Tensor:
    first = torch.rand(1, IMAGES, 1)
    return (first + torch.arange(4)[:, None, None]) / 4


def test_a_gaussian_costs_its_information(places: torch.Tensor) -> None:
    nats = nats_of(drawn(places, torch.ones_like(places)))
    expected = K * D / 2 * math.log(1 + 1 / NOISE**2)
    assert nats["gaussian"] == pytest.approx(expected, rel=0.01)
    assert nats["nats"] == pytest.approx(nats["gaussian"])


def test_a_model_that_knows_nothing_costs_no_more_than_a_gaussian(places: torch.Tensor) -> None:
    nats = nats_of(drawn(places, torch.full_like(places, 100.0)))
    assert nats["nats"] == pytest.approx(nats["gaussian"])


def test_what_a_model_knows_of_much_noise_is_not_lost_near_the_data(places: torch.Tensor) -> None:
    half = (places * STRETCHES).long() < STRETCHES // 2
    blind = nats_of(drawn(places, torch.where(half, 0.0, 1.0)))
    worse = nats_of(drawn(places, torch.where(half, 0.0, 9.0)))
    assert worse["nats"] == pytest.approx(blind["nats"])
    assert worse["nats"] < worse["gaussian"]


def test_the_order_of_images_and_their_parts_change_nothing(places: torch.Tensor) -> None:
    factor = 2 * torch.rand_like(places)
    (whole,) = drawn(places, factor)
    parts = [
        DrawnErrors(
            place=whole.place[:, some],
            weighed=whole.weighed[:, some],
            plain=whole.plain[:, some],
            span=whole.span,
            least=whole.least[some],
        )
        for some in (slice(1000, None), slice(1000))
    ]
    assert nats_of(parts) == pytest.approx(nats_of([whole]))


def test_no_linear_guess_of_noisy_standard_tokens_is_nearer() -> None:
    tokens = torch.randn(IMAGES, K, D)
    noisy = tokens + 0.5 * torch.randn_like(tokens)
    fitted = (noisy * tokens).sum() / noisy.square().sum()
    assert shrunk(noisy, 0.5).allclose(fitted * noisy, atol=0.05)
    error = (shrunk(noisy, 0.5) - tokens).square().mean()
    assert error < (noisy - tokens).square().mean()
    assert error.item() == pytest.approx(0.5**2 / (1 + 0.5**2), rel=0.05)

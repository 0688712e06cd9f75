"""The adversarial term: neither side moves the other, and LeCam holds the scores together."""

import pytest
import torch
from torch import Tensor

from orderer.objectives import Discriminator


def sides() -> tuple[Tensor, Tensor]:
    """Rebuilt images, grey and noisy, and real ones, with stripes."""
    stripes = torch.ones(4, 3, 16, 16)
    stripes[..., ::2] = -1
    return 0.3 * torch.randn(4, 3, 16, 16), stripes


def test_the_orderers_loss_leaves_the_discriminator_as_it_is() -> None:
    discriminator = Discriminator(lecam=1.0, width=8)
    rebuilt, real = sides()
    rebuilt.requires_grad_()
    discriminator(rebuilt, real).orderer.backward()
    assert rebuilt.grad is not None and rebuilt.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())


def test_the_discriminators_loss_does_not_reach_what_rebuilt() -> None:
    discriminator = Discriminator(lecam=1.0, width=8)
    rebuilt, real = sides()
    rebuilt.requires_grad_()
    discriminator(rebuilt, real).discriminator.backward()
    assert rebuilt.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


def test_the_losses_are_hinges() -> None:
    discriminator = Discriminator(lecam=0.0, width=8)
    rebuilt, real = sides()
    with torch.no_grad():
        low, high = discriminator.network(rebuilt), discriminator.network(real)
    found = discriminator(rebuilt, real)
    expected = (1 - high).clamp(min=0).mean() + (1 + low).clamp(min=0).mean()
    torch.testing.assert_close(found.orderer, -low.mean())
    torch.testing.assert_close(found.discriminator, expected)


def test_lecam_is_the_squared_distance_to_the_other_sides_average() -> None:
    plain, held = Discriminator(lecam=0.0, width=8), Discriminator(lecam=0.5, width=8)
    held.load_state_dict(plain.state_dict())
    held.real_average.fill_(0.7)
    held.rebuilt_average.fill_(-0.2)
    rebuilt, real = sides()
    with torch.no_grad():
        low, high = plain.network(rebuilt), plain.network(real)
    expected = (high + 0.2).square().mean() + (low - 0.7).square().mean()
    added = held(rebuilt, real).discriminator - plain(rebuilt, real).discriminator
    torch.testing.assert_close(added, 0.5 * expected)
    torch.testing.assert_close(held.real_average, 0.99 * torch.tensor(0.7) + 0.01 * high.mean())
    torch.testing.assert_close(held.rebuilt_average, 0.99 * torch.tensor(-0.2) + 0.01 * low.mean())


def test_a_score_depends_on_no_other_image() -> None:
    discriminator = Discriminator(lecam=0.0, width=8)
    rebuilt, _ = sides()
    torch.testing.assert_close(
        discriminator.network(rebuilt)[:1], discriminator.network(rebuilt[:1])
    )


def test_thirty_steps_tell_the_sides_apart() -> None:
    discriminator = Discriminator(lecam=0.0, width=8)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        loss = discriminator(*sides()).discriminator
        loss.backward()
        optimizer.step()
    assert loss < 0.5


@pytest.mark.parametrize("size", [8, 36])
def test_small_images_have_a_score(size: int) -> None:
    image = torch.zeros(1, 3, size, size)
    assert Discriminator(lecam=0.0)(image, image).orderer.isfinite()

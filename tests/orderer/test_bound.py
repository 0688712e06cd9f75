"""The bound of the learned scale."""

import math

import pytest
import torch

from orderer import Orderer
from orderer.bound import at_most


def test_below_the_bound_nothing_changes() -> None:
    x = torch.linspace(-3, 2, 11, requires_grad=True)
    bounded = at_most(x, 2.0)
    (gradient,) = torch.autograd.grad(bounded.sum(), x)
    assert torch.equal(bounded, x) and gradient.eq(1).all()


@pytest.mark.parametrize(("slope", "through"), [(1.0, 1.0), (-1.0, 0.0)])
def test_beyond_it_only_what_lowers_comes_through(slope: float, through: float) -> None:
    x = torch.tensor(3.0, requires_grad=True)
    bounded = at_most(x, 2.0)
    (gradient,) = torch.autograd.grad(slope * bounded, x)
    assert bounded == 2 and gradient == through


def test_a_scale_beyond_its_bound_comes_back(tiny_orderer: Orderer) -> None:
    with torch.no_grad():
        tiny_orderer.log_scale.fill_(math.log(150))
    torch.testing.assert_close(tiny_orderer.scale.item(), 100.0, rtol=1e-6, atol=0)
    optimizer = torch.optim.SGD([tiny_orderer.log_scale], lr=0.01)
    for _ in range(50):
        optimizer.zero_grad()
        (tiny_orderer.scale / 100).square().backward()
        optimizer.step()
    assert tiny_orderer.scale < 99

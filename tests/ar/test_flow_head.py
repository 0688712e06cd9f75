"""The flow head: what is computed once is what would be computed every time."""

import pytest
import torch
from torch import Tensor

from ar import ARModel
from ar.heads import FlowHead
from orderer.flow import euler


@pytest.fixture
def head(tiny_ar: ARModel) -> FlowHead:
    return tiny_ar.head


@torch.no_grad()
def test_modulations_computed_once_are_those_computed_per_step(head: FlowHead) -> None:
    states, noise, steps = torch.randn(5, 16), torch.randn(5, 6), 4

    def velocity(x: Tensor, step: int) -> Tensor:
        t = torch.full((len(x),), step / steps)
        data = head._predict(x, head.condition(states), head.modulations(t))
        return (data - x) / (1 - step / steps)

    drawn = head.sample(states, None, head.schedule(steps), noise, 1.0)
    torch.testing.assert_close(drawn, euler(velocity, noise, steps), atol=1e-5, rtol=0)


@torch.no_grad()
def test_guided_rows_together_are_two_calls_apart(head: FlowHead) -> None:
    guided, unguided, noise = torch.randn(5, 16), torch.randn(5, 16), torch.randn(5, 6)
    (modulation,) = head.schedule(1)
    together = head.sample(guided, unguided, [modulation], noise, 3.0)
    one = head.sample(guided, None, [modulation], noise, 1.0)
    other = head.sample(unguided, None, [modulation], noise, 1.0)
    torch.testing.assert_close(together, other + 3 * (one - other), atol=1e-5, rtol=0)


def test_the_last_step_lands_on_the_predicted_token(head: FlowHead) -> None:
    torch.nn.init.zeros_(head.to_data.weight)
    torch.nn.init.constant_(head.to_data.bias, 0.5)
    for steps in (1, 3):
        noise = torch.randn(5, 6)
        drawn = head.sample(torch.randn(5, 16), None, head.schedule(steps), noise, 1.0)
        torch.testing.assert_close(drawn, torch.full((5, 6), 0.5))


def test_the_loss_of_a_constant_is_the_variance_of_the_data(head: FlowHead) -> None:
    torch.nn.init.zeros_(head.to_data.weight)
    torch.nn.init.zeros_(head.to_data.bias)
    loss = head.loss(torch.randn(2_000, 6), torch.randn(2_000, 16)).mean()
    assert loss.item() == pytest.approx(1, abs=0.05)


def test_each_row_has_the_loss_it_has_alone(head: FlowHead) -> None:
    # Every row the same: then its loss differs by its noise alone, and the mean by little.
    tokens, states = torch.randn(1, 6), torch.randn(1, 16)
    losses = head.loss(tokens.expand(4_000, -1), states.expand(4_000, -1))
    assert losses.shape == (4_000,)
    again = head.loss(tokens.expand(4_000, -1), states.expand(4_000, -1))
    assert losses.mean().item() == pytest.approx(again.mean().item(), rel=0.05)


def test_a_row_of_the_loss_depends_on_its_own_token_and_state(head: FlowHead) -> None:
    tokens = torch.randn(3, 6, requires_grad=True)
    states = torch.randn(3, 16, requires_grad=True)
    head.loss(tokens, states)[1].backward()
    for reached in (tokens.grad, states.grad):
        assert reached is not None
        assert reached.abs().sum(dim=1).gt(0).tolist() == [False, True, False]


def test_the_loss_is_a_function_of_its_generator(head: FlowHead) -> None:
    tokens, states = torch.randn(3, 6), torch.randn(3, 16)

    def loss(seed: int) -> Tensor:
        return head.loss(tokens, states, torch.Generator().manual_seed(seed))

    assert torch.equal(loss(1), loss(1)) and not torch.equal(loss(1), loss(2))

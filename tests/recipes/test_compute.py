"""Counted operations: closed forms, how they grow, and what they pay for."""

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from ar import ARConfig, ARModel
from recipes.compute import equal_steps, flops_of, step_flops
from recipes.training_settings import OptimSettings

SIZES = {"width": 16, "heads": 2, "layers": 2, "mlp_width": 32, "head_width": 16, "head_layers": 2}
CONFIG = {"tokens": 4, "token_dim": 6, "condition": "none", **SIZES}


def cost(batch: int = 4, **changes: object) -> dict[str, int]:
    model = ARModel(ARConfig(**{**CONFIG, **changes})).train()  # type: ignore[arg-type]
    learner = OptimSettings(warmup_steps=0).learner(model, 1)
    tokens = torch.randn(batch, 4, 6)
    return step_flops(learner, lambda: model.loss(tokens, model.unconditioned(batch)).mean())


def test_a_linear_layer_costs_two_operations_a_weight_and_row_and_twice_that_backwards() -> None:
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    assert flops_of(lambda: layer(x)) == 2 * 3 * 5 * 7
    assert flops_of(lambda: layer(x).sum().backward()) == 3 * 2 * 3 * 5 * 7


def test_attention_on_the_cpu_is_counted() -> None:
    model = ARModel(ARConfig(**CONFIG)).eval()  # type: ignore[arg-type]
    tokens, places, width = torch.randn(3, 4, 6), 5, 16

    def counted() -> int:
        return flops_of(lambda: model.trunk(tokens[:, :-1], model.unconditioned(3)))

    weights = 4 * width * width + 3 * width * 32
    layer = 2 * 3 * places * weights + 2 * 2 * 3 * places * places * width
    rotations = 2 * 3 * places * (width // 4)  # the angles of the positions, once
    embedding = 2 * 3 * 3 * 6 * width
    assert counted() == pytest.approx(2 * layer + embedding, abs=rotations)


@pytest.mark.parametrize("places", [16, 144])
def test_fused_attention_counts_like_any(places: int) -> None:
    batch, heads, width = 2, 3, 4
    q = torch.randn(batch, heads, places, width, requires_grad=True)
    products = 2 * batch * heads * places * places * width
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        assert flops_of(lambda: scaled_dot_product_attention(q, q, q)) == 2 * products
        backward = flops_of(lambda: scaled_dot_product_attention(q, q, q).sum().backward())
    assert backward == (2 + 5) * products  # it computes the scores anew


def test_a_loss_costs_twice_as_much_for_twice_the_batch_and_an_update_as_much() -> None:
    once, twice = cost(4), cost(8)
    assert twice["loss"] == 2 * once["loss"]
    assert twice["optimizer"] == once["optimizer"] > 0
    assert once["step"] == once["loss"] + once["optimizer"]


def test_more_draws_and_wider_heads_cost_more_and_regression_least() -> None:
    flow = cost()["step"]
    assert cost(draws=4)["step"] > flow < cost(head_width=32)["step"]
    assert cost(head="regression")["step"] < flow < cost(modulation="token")["step"]


def test_counting_is_one_step_of_training() -> None:
    model = ARModel(ARConfig(**CONFIG)).train()  # type: ignore[arg-type]
    last = model.head.net.to_token.bias  # what is before it learns nothing while it is 0
    before = last.detach().clone()
    learner = OptimSettings(warmup_steps=0).learner(model, 2)
    tokens = torch.randn(4, 4, 6)
    step_flops(learner, lambda: model.loss(tokens, model.unconditioned(4)).mean())
    assert not torch.equal(last, before)


def test_steps_are_shared_out_so_that_all_cost_the_same() -> None:
    assert equal_steps({"a": 100, "b": 50, "c": 300, "d": 10**9}, 30, "a") == {
        "a": 30,
        "b": 60,
        "c": 10,
        "d": 1,
    }
    with pytest.raises(ValueError, match="a step of b must cost at least 1 operation, got 0"):
        equal_steps({"a": 1, "b": 0}, 30, "a")

"""What training costs in floating-point operations, counted: for comparisons at equal compute."""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from recipes.engine.training import Learner, apply_gradients, clear_gradients

Shape = Sequence[int]


def _attention(query: Shape, key: Shape, value: Shape, *_: object, **__: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: Shape, query: Shape, key: Shape, value: Shape, *_: object, **__: object
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)


FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
}
"""Of a CPU, which torch's own counter knows nothing of."""


def flops_of(work: Callable[[], object]) -> int:
    """Operations of the matrix products, convolutions and attention of some work; 2 per product."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        work()
    return counter.get_total_flops()


def step_flops(learner: Learner, loss: Callable[[], Float[Tensor, ""]]) -> dict[str, int]:
    """Operations of a training step of a model, which is then one step further.

    Args:
        learner: of the model.
        loss: takes that of a batch.

    Returns:
        `loss`: forward and backward; `optimizer`: the update, which for Muon are products too;
        `step`: both.
    """
    clear_gradients([learner])
    of_loss = flops_of(lambda: loss().backward())
    optimizer = flops_of(lambda: apply_gradients(0, [learner]))
    return {"loss": of_loss, "optimizer": optimizer, "step": of_loss + optimizer}


def equal_steps(costs: Mapping[str, int], steps: int, default: str) -> dict[str, int]:
    """How many steps each may do for the cost of `steps` of the default one, at least 1.

    Raises:
        ValueError: if a step costs nothing.
    """
    for name, cost in costs.items():
        if cost < 1:
            raise ValueError(f"a step of {name} must cost at least 1 operation, got {cost}")
    return {name: max(1, round(steps * costs[default] / cost)) for name, cost in costs.items()}

"""The one training loop of the nets that judge."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn


def fit(
    model: nn.Module,
    loss: Callable[[Int[Tensor, "B"]], Float[Tensor, ""]],
    *,
    examples: int,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
) -> None:
    """Lower the loss of drawn examples with AdamW, the rate falling linearly to zero.

    Args:
        model: its parameters learn; it is in eval mode afterwards.
        loss: of the examples whose indices it is given.
        examples: how many there are to draw from.
        steps: updates, 1 or more.
        batch_size: examples in an update, drawn with repetition.
        learning_rate: of the first update.
        seed: of the draws.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(examples, (batch_size,), generator=random)
        optimizer.zero_grad()
        loss(chosen).backward()
        optimizer.step()
        schedule.step()
    model.eval()


def centred(images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    """Levels 0..255 to values in [-1, 1]."""
    return images.float() / 127.5 - 1

"""Does a token tell its position? Where all do, a model may treat each position as another task.

N images   M test images   K tokens   D channels of a token   R rows (one token of one image)
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .fitting import fit

WIDTH = 128
LEARNING_RATE = 2e-3
LEAST_DEVIATION = 1e-6
"""Of a channel that says anything."""


def position_decodability(
    train: Float[Tensor, "N K D"],
    test: Float[Tensor, "M K D"],
    *,
    steps: int = 300,
    batch_size: int = 256,
    seed: int = 0,
) -> dict[str, float]:
    """Train a small net to name the position of a single token, without its neighbours.

    Channels are standardised over all positions together: means and deviations of positions are
    among what tells them.

    Returns:
        `accuracy` on the test images, `chance`, that of a guess, and `told`: the share of what a
        guess gets wrong that is right, so that sequences of any length can be compared.

    Raises:
        ValueError: for fewer than 2 tokens, no image, or no step.
    """
    if train.shape[1] < 2 or not len(train) or not len(test):
        raise ValueError(
            "a position is told apart from at least one other in at least one image, got tokens of "
            f"shapes {tuple(train.shape)} and {tuple(test.shape)}"
        )
    mean, std = train.mean(dim=(0, 1)), train.std(dim=(0, 1)).clamp(min=LEAST_DEVIATION)  # [D]
    rows, positions = _rows((train - mean) / std)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = _net(train.shape[2], train.shape[1]).to(train.device)

    def loss(chosen: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        return F.cross_entropy(net(rows[chosen]), positions[chosen])

    fit(
        net,
        loss,
        examples=len(rows),
        steps=steps,
        batch_size=batch_size,
        learning_rate=LEARNING_RATE,
        seed=seed,
    )
    seen, own = _rows((test - mean) / std)
    with torch.no_grad():
        right = net(seen).argmax(dim=1) == own
    accuracy, chance = right.double().mean().item(), 1 / train.shape[1]
    return {
        "accuracy": accuracy,
        "chance": chance,
        "told": (accuracy - chance) / (1 - chance),
    }


def _rows(tokens: Float[Tensor, "N K D"]) -> tuple[Float[Tensor, "R D"], Int[Tensor, "R"]]:
    """Every token by itself, and its position."""
    number, length, _ = tokens.shape
    return tokens.flatten(0, 1), torch.arange(length, device=tokens.device).repeat(number)


def _net(channels: int, positions: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(channels, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.SiLU(),
        nn.Linear(WIDTH, positions),
    )

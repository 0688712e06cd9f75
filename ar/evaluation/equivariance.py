"""Equivariance: is every next token the same task, so that one set of weights can do them all?

    K tokens   P bins of positions   C chunks of the test images

An order is equivariant where its positions are about as hard, pull the weights they share in one
direction, and where what is learned at some of them serves at the others. EQ is the mean of the
three. It says nothing of how good the tokens are, nor of how much can be known of them: report it
beside the figures that it is made of.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .difficulty import gini, variation
from .gradient_conflict import conflict, gradient_cosines
from .position_decodability import position_decodability
from .sequences import Make, Sequences, fresh, learn
from .transfer import Schooling, Transfer, transfer

EARLY = 60
"""Steps after which gradients are compared, see `gradient_conflict`."""
COMPARED = 2048
"""Training images, at most, whose gradients are."""
STUDENT = 2.131
"""The 97.5% quantile of Student's t for `transfer.CHUNKS` values."""


def measure_order(
    make: Make, train: Sequences, test: Sequences, *, schooling: Schooling | None = None
) -> dict[str, Any]:
    """Train small models on an order's tokens, and measure how alike its positions are.

    Args:
        make: of a small model with any head.
        train: what they learn.
        test: other images.
        schooling: of every model.

    Returns:
        `equivariance`, see there; and `positions`, see `position_decodability`.
    """
    how = schooling or Schooling()
    model, few = fresh(make, train, how.seed), torch.arange(min(len(train), COMPARED))
    random = torch.Generator(train.tokens.device).manual_seed(how.seed)
    learn(model, train, **{**vars(how), "steps": EARLY})
    cosines = gradient_cosines(model, train.tokens[few], train.condition(model, few), random)
    moved = transfer(make, train, test, schooling=how)
    known = position_decodability(train.tokens, test.tokens, seed=how.seed)
    return {"equivariance": equivariance(moved, cosines), "positions": known}


def equivariance(moved: Transfer, cosines: Float[Tensor, "P P"]) -> dict[str, Any]:
    """Sum up three measures of an order.

    Difficulty is what is gained over a blind model of the same head: over a Gaussian, a head whose
    tokens are far from one gains by their shape alone, everywhere alike.

    Args:
        moved: from `transfer`.
        cosines: from `gradient_cosines`.

    Returns:
        `gain`: in the head's loss, with its 95% interval over test images, `at` each position, and
        their `variation` and `gini`; `conflict`; `transfer`; and `eq` of the three. None stands for
        figures that nothing is known of: of an order whose context surely gives nothing, say.
    """
    whole, at = moved.gains.mean(dim=1), moved.gains.mean(dim=0)  # [C], [K]
    mean, half = whole.mean().item(), STUDENT * whole.std().item() / len(whole) ** 0.5
    spread = gini(at) if mean > half else None
    pull = conflict(cosines)
    parts = None
    if spread is not None and pull["mean"] is not None and moved.mean is not None:
        parts = (1 - spread, (pull["mean"] + 1) / 2, moved.mean)
    return {
        "eq": None if parts is None else sum(parts) / len(parts),
        "gain": {
            "mean": mean,
            "low": mean - half,
            "high": mean + half,
            "at": at.tolist(),
            "variation": None if spread is None else variation(at),
            "gini": spread,
        },
        "conflict": pull,
        "transfer": {
            "mean": moved.mean,
            "shares": list(moved.shares),
            "without_positions": moved.without_positions,
            "shifted": moved.shifted,
        },
    }

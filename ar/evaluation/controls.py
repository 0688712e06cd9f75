"""Sequences whose order is known to be good or bad: a measure that misjudges them is wrong.

N sequences   K tokens   D channels of a token
"""

import torch
from jaxtyping import Float
from torch import Tensor

PULLS = (0.6, 0.3)
"""How strongly a token follows the one before it, and the one before that."""
FRESH = 0.5
"""Deviation of what is new in a token."""
SETTLING = 32
"""Tokens that are drawn and left out: afterwards the process is stationary."""
WORLD, TURNED = 0, 1
"""Seeds of what train and test sequences share: the process and letters' vectors; the turns."""


def stationary(
    number: int, tokens: int, channels: int, seed: int
) -> Float[Tensor, "{number} {tokens} {channels}"]:
    """A vector autoregressive process of order 2: one rule at every position."""
    turns = _turns(2, channels, WORLD)
    first, second = PULLS[0] * turns[0], PULLS[1] * turns[1]
    random = torch.Generator().manual_seed(seed)
    x = [torch.zeros(number, channels)] * 2
    for _ in range(SETTLING + tokens):
        new = FRESH * torch.randn(number, channels, generator=random)
        x.append(x[-1] @ first.T + x[-2] @ second.T + new)
    return torch.stack(x[-tokens:], dim=1)


def turned(x: Float[Tensor, "N K D"]) -> Float[Tensor, "N K D"]:
    """Turn each position in a way of its own: as much can be known, by another rule everywhere."""
    return torch.einsum("kde,nke->nkd", _turns(x.shape[1], x.shape[2], TURNED), x)


def flipped(x: Float[Tensor, "N K D"]) -> Float[Tensor, "N K D"]:
    """Change the sign of some positions."""
    random = torch.Generator().manual_seed(WORLD)
    signs = 2.0 * torch.randint(2, (x.shape[1], 1), generator=random) - 1
    return signs * x


def exchanged(x: Float[Tensor, "N K D"], seed: int) -> Float[Tensor, "N K D"]:
    """Give each position's tokens to other sequences: nothing can be known but the marginal."""
    random = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(x), generator=random) for _ in range(x.shape[1])]
    return torch.stack([x[order, k] for k, order in enumerate(orders)], dim=1)


def letters(
    text: bytes, number: int, tokens: int, channels: int, seed: int
) -> Float[Tensor, "{number} {tokens} {channels}"]:
    """Pieces of a text from random places, each byte a fixed random vector.

    Raises:
        ValueError: for a text shorter than a piece.
    """
    if len(text) < tokens:
        raise ValueError(f"a text must have at least {tokens} bytes, got {len(text)}")
    vectors = torch.randn(256, channels, generator=torch.Generator().manual_seed(WORLD))
    random = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(text) - tokens + 1, (number, 1), generator=random)
    return vectors[torch.tensor(list(text))[starts + torch.arange(tokens)]]


def _turns(
    number: int, channels: int, seed: int
) -> Float[Tensor, "{number} {channels} {channels}"]:
    """Random orthogonal matrices, all equally likely.

    Source: Mezzadri 2007, "How to generate random matrices from the classical compact groups",
    section 5, https://arxiv.org/abs/math-ph/0609050.
    """
    random = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(number, channels, channels, generator=random))
    return q * r.diagonal(dim1=1, dim2=2).sign()[:, None]

"""Rank: in how many directions tokens vary.

    N images   K tokens   D channels of a token

All tokens of an image are one vector, each of its channels standardised: it counts what channels
say together, not how loud they are.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

SILENT = 1e-6
"""Deviation below which a channel says nothing."""


def participation_rank(tokens: Float[Tensor, "N K D"]) -> float:
    """(sum of the variances)^2 / sum of their squares, over the principal directions.

    1 if all channels say the same, the number of channels that vary if each says something of its
    own; fewer images than channels bound it by their number. 0 if nothing varies.

    Raises:
        ValueError: for fewer than 2 images.

    Source: Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement",
    section 4, https://www.biorxiv.org/content/10.1101/214262.
    """
    shares = _variance_shares(tokens)
    return 1 / shares.square().sum().item() if len(shares) else 0.0


def entropy_rank(tokens: Float[Tensor, "N K D"]) -> float:
    """The exponential of the entropy of the variance over the principal directions.

    As `participation_rank`, but it counts small directions for more.

    Source: Roy and Vetterli 2007, "The effective rank", section 2,
    https://www.eurasip.org/Proceedings/Eusipco/Eusipco2007/Papers/a5p-h05.pdf.
    """
    shares = _variance_shares(tokens)
    return torch.special.entr(shares).sum().exp().item() if len(shares) else 0.0


def _variance_shares(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "_"]:
    """The share of the variance in each principal direction; empty if nothing varies."""
    if len(tokens) < 2:
        raise ValueError(f"a rank needs at least 2 images, got {len(tokens)}")
    x = tokens.double().flatten(1)
    deviation = x.std(dim=0)
    x = ((x - x.mean(dim=0)) / deviation)[:, deviation > SILENT]
    variances = torch.linalg.svdvals(x).square()
    return variances / variances.sum() if x.shape[1] else variances

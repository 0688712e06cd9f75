"""Whether generated tokens spread as those of the data do, at each position.

N images   K tokens   D channels of a token
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

LEAST, MOST = 0.9, 1.1
"""What a sampler without guidance should stay within."""


def deviations(standardised: Float[Tensor, "N K D"]) -> Float[Tensor, "K"]:
    """The deviation of generated tokens in those of the data, the channels' root mean square.

    Under 1 samples are too much alike, as guidance makes them; above 1 errors add up or a guided
    prediction overshoots.

    Raises:
        ValueError: for fewer than two images.
    """
    if len(standardised) < 2:
        raise ValueError(f"a deviation needs at least 2 images, got {len(standardised)}")
    return standardised.var(dim=0).mean(dim=-1).sqrt()


def drifting(spread: Sequence[float]) -> list[int]:
    """The positions, from 1, whose deviation lies outside LEAST..MOST."""
    return [k for k, each in enumerate(spread, start=1) if not LEAST <= each <= MOST]

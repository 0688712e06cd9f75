"""Codes: what is left of tokens once each must be one of a few, or a sum of some of a few.

    N images   K tokens   D channels of a token   V codes of a place and level   L levels

Every place in the sequence has its own V codes. With several levels the second codes what the first
has left over, and so on: a token is then L log2 V bits. The codes are found after the training of
the orderer, which knows nothing of them; one that learns with its codes may put more into them.

Source: Juang and Gray 1982, "Multiple stage vector quantization for speech coding",
https://doi.org/10.1109/ICASSP.1982.1171604.
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..kmeans import find_centres, nearest

FITTED_ON = 20_000
"""Most images that codes are found on."""


def fit_codes(
    tokens: Float[Tensor, "N K D"], codes: int, levels: int
) -> Float[Tensor, "L K {codes} D"]:
    """Find the codes of every level and place, on the first images.

    Raises:
        ValueError: if there are fewer images than codes.
    """
    left = tokens[:FITTED_ON].float()  # [N, K, D]
    found = []
    for _ in range(levels):
        found.append(torch.stack([find_centres(at, codes) for at in left.unbind(dim=1)]))
        left = left - _level(left, found[-1])
    return torch.stack(found)


def quantised(
    tokens: Float[Tensor, "N K D"], codes: Float[Tensor, "L K V D"]
) -> Float[Tensor, "N K D"]:
    """Put the sum of its codes in the place of every token."""
    total = torch.zeros_like(tokens)
    for of_level in codes:
        total = total + _level(tokens - total, of_level)
    return total


def _level(tokens: Float[Tensor, "N K D"], codes: Float[Tensor, "K V D"]) -> Float[Tensor, "N K D"]:
    """The nearest code of each token."""
    pairs = zip(tokens.unbind(dim=1), codes, strict=True)
    return torch.stack([of_place[nearest(at, of_place)] for at, of_place in pairs], dim=1)


def most_recovered(bits: float, characters: Mapping[int, int], alphabet: int) -> float:
    """The share of random characters that no reader of so many bits can exceed.

    An error rate e among n characters of A needs n (log2 A - h(e) - e log2 (A - 1)) bits, however
    they are coded (rate and distortion); we look for the least e that the bits allow.

    Args:
        bits: of the code of one string.
        characters: length of a string to how many characters are of strings so long.
        alphabet: characters that are equally likely, A, at least 2.
    """
    total = sum(characters.values())
    return (
        sum(
            number * (1 - _least_error(bits / length, alphabet))
            for length, number in characters.items()
        )
        / total
    )


def _least_error(bits: float, alphabet: int) -> float:
    """The least error rate of a character that is told in so many bits, by bisection."""
    low, high = 0.0, 1 - 1 / alphabet
    for _ in range(60):
        middle = (low + high) / 2
        if _needed(middle, alphabet) > bits:
            low = middle
        else:
            high = middle
    return 0.0 if bits >= math.log2(alphabet) else high


def _needed(error: float, alphabet: int) -> float:
    """The bits of a character that may be wrong at this rate, strictly between 0 and 1."""
    entropy = -error * math.log2(error) - (1 - error) * math.log2(1 - error)
    return math.log2(alphabet) - entropy - error * math.log2(alphabet - 1)

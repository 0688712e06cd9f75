"""Prefixes: the first k tokens of an ordered sequence, and how k is drawn in training.

Training on random prefixes is what orders the tokens: a decoder that must do its best with any
first k pushes what matters most to the front.

    B batch   K tokens in the full sequence   D channels of a token   k prefix length, 1..K

Idea: Rippel et al. 2014, "Learning Ordered Representations with Nested Dropout" (their lengths
are geometric, ours are not), https://arxiv.org/abs/1402.0915.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw_lengths(
    batch: int, full: int, full_share: float, *, generator: torch.Generator | None = None
) -> Int[Tensor, "B"]:
    """Draw one prefix length for each image: the full one with `full_share`, else uniform in 1..K.

    Returns:
        Lengths in 1..K, on the generator's device (the CPU without one).

    Raises:
        ValueError: if `full` is below 1 or `full_share` outside 0..1.
    """
    if full < 1:
        raise ValueError(f"a full sequence has at least 1 token, got {full}")
    if not 0 <= full_share <= 1:
        raise ValueError(f"full_share must lie in 0..1, got {full_share}")
    device = generator.device if generator is not None else None
    lengths = torch.randint(1, full + 1, (batch,), generator=generator, device=device)
    whole = torch.rand(batch, generator=generator, device=device) < full_share
    return torch.where(whole, full, lengths)


def prefix_lengths(full: int) -> tuple[int, ...]:
    """The prefixes that are measured and aligned with text: 1, 2, 4, ... and K itself."""
    powers = [2**i for i in range(full.bit_length()) if 2**i < full]
    return (*powers, full)


def keep_mask(lengths: Int[Tensor, "B"], full: int) -> Bool[Tensor, "B {full}"]:
    """Mark the tokens inside each prefix: True is kept, False is cut."""
    positions = torch.arange(full, device=lengths.device)  # [K]
    return positions[None, :] < lengths[:, None]  # [B, K]


def cut_to_prefix(
    tokens: Float[Tensor, "B K D"], keep: Bool[Tensor, "B K"], null: Float[Tensor, "D"]
) -> Float[Tensor, "B K D"]:
    """Put the null token in place of every token past its image's prefix."""
    return torch.where(keep[..., None], tokens, null)

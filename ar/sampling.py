"""Sampling tokens one after another, cached and batched, guided and unguided rows together.

B batch   C places of the condition   k tokens to draw   D channels of a token   W width
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache

from .heads import FlowHead
from .trunk import Condition, Trunk


def sample_tokens(
    trunk: Trunk,
    head: FlowHead,
    condition: Condition,
    null: Condition | None,
    noise: Float[Tensor, "B k D"],
    guidance_scale: float,
    steps: int,
) -> Float[Tensor, "B k D"]:
    """Draw standardised tokens.

    Args:
        trunk: reads the condition and the tokens so far.
        head: draws a token from the trunk's state.
        condition: one row per image.
        null: the rows without a condition for guidance; None without guidance.
        noise: the start of every token's path.
        guidance_scale: 1.0 is off.
        steps: Euler steps per token.
    """
    both = condition if null is None else stack_conditions(condition, null)
    rows, number = both.keep.shape
    modulations = head.schedule(steps)
    cache = DynamicCache(config=trunk.llama.config)
    places = trunk.places(number, noise.shape[1])
    keep = F.pad(both.keep, (0, noise.shape[1]), value=True)
    tokens = noise[:, :0]  # [B, 0, D]
    kinds = rows // len(noise)  # of rows: guided, or guided and unguided
    x = torch.cat([both.states, trunk.sequence(tokens).repeat(kinds, 1, 1)], dim=1)
    for k in range(noise.shape[1]):
        seen = number + k + 1
        output = trunk.run(x, keep[:, :seen], places[seen - x.shape[1] : seen], cache)
        state = output.last_hidden_state[:, -1]  # [B or 2B, W]
        guided, *unguided = state.chunk(kinds)
        token = head.sample(
            guided, unguided[0] if unguided else None, modulations, noise[:, k], guidance_scale
        )
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        x = trunk.sequence(tokens)[:, -1:].repeat(kinds, 1, 1)
    return tokens


def stack_conditions(first: Condition, second: Condition) -> Condition:
    """Put two batches of conditions in one, the shorter padded."""
    length = max(first.keep.shape[1], second.keep.shape[1])
    parts = [(c, length - c.keep.shape[1]) for c in (first, second)]
    return Condition(
        states=torch.cat([F.pad(c.states, (0, 0, 0, missing)) for c, missing in parts]),
        keep=torch.cat([F.pad(c.keep, (0, missing)) for c, missing in parts]),
    )

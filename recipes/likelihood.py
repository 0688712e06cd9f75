"""How likely an AR model finds the tokens of test images: what compares heads of one orderer.

N images   K tokens   D channels of a token
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ar import ARModel
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.conditions import condition_on

CHUNK = 50
"""Images at once: their noise depends on it."""


@torch.no_grad()
def densities(
    tokens: Float[Tensor, "_ K D"],
    captions: Sequence[str],
    model: ARModel,
    orderer: ImageSequence,
    processor: OrdererProcessor,
) -> Float[Tensor, "N K"] | None:
    """Nats of each of the first tokens, given a caption each; None for a head without likelihood.

    See `ARModel.log_prob`.
    """
    if not model.head.has_likelihood:
        return None
    noise = torch.Generator(tokens.device).manual_seed(0)
    parts = []
    for i in range(0, len(captions), CHUNK):
        condition = condition_on(captions[i : i + CHUNK], model, orderer, processor)
        some = tokens[i : i + len(condition.keep)]
        parts.append(model.log_prob(some, condition, generator=noise))
    return torch.cat(parts)


def likelihood(known: Float[Tensor, "N K"], channels: int) -> dict[str, Any]:
    """What `densities` come to.

    Returns:
        `nats` and `bits` for each dimension (higher is better), `at`: nats at each position, and
        `error`: the standard error of `nats` over the images.
    """
    each = known.double() / channels  # [N, K]
    of_images = each.mean(dim=1)
    nats = of_images.mean().item()
    return {
        "nats": nats,
        "bits": nats / math.log(2),
        "error": of_images.std().item() / math.sqrt(len(each)) if len(each) > 1 else None,
        "at": each.mean(dim=0).tolist(),
        "images": len(each),
    }

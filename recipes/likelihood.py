"""How likely an AR model finds the tokens of test images: what compares heads of one orderer."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ar import ARModel
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.conditions import condition_on

CHUNK = 50
"""Images at once: their noise depends on it."""


@torch.no_grad()
def likelihood(
    tokens: Tensor,
    captions: Sequence[str],
    model: ARModel,
    orderer: ImageSequence,
    processor: OrdererProcessor,
) -> dict[str, Any] | None:
    """The log-likelihood of the first tokens, given a caption each, see `ARModel.log_prob`.

    Returns:
        `nats` and `bits` for each dimension (higher is better), `at`: nats at each position, and
        `error`: the standard error of `nats` over the images. None for a head without likelihood.
    """
    if not model.head.has_likelihood:
        return None
    noise = torch.Generator(tokens.device).manual_seed(0)
    parts = []
    for i in range(0, len(captions), CHUNK):
        condition = condition_on(captions[i : i + CHUNK], model, orderer, processor)
        some = tokens[i : i + len(condition.keep)]
        parts.append(model.log_prob(some, condition, generator=noise))
    each = torch.cat(parts).double() / tokens.shape[-1]  # [N, K]
    of_images = each.mean(dim=1)
    nats = of_images.mean().item()
    return {
        "nats": nats,
        "bits": nats / math.log(2),
        "error": of_images.std().item() / math.sqrt(len(each)) if len(each) > 1 else None,
        "at": each.mean(dim=0).tolist(),
        "images": len(each),
    }

"""Images completed from the first of their own tokens: where what is drawn goes wrong.

The more tokens are given, the fewer are drawn. Where figures hardly improve with the first ones, it
is not the first ones that are hard to draw; where guidance changes nothing, the tokens that are
given have said already what it asks for.
"""

from typing import Any

import torch
from torch import Tensor

from ar import ARModel, Sampling
from data import Pairs
from orderer import prefix_lengths
from recipes.decoding import BATCH, decoded
from recipes.fidelity import Fidelity
from recipes.generation import Drawer, prompts
from recipes.guidance import samplings
from recipes.judging import Judge


def check_completes(model: ARModel) -> None:
    """Refuse a model that does not draw tokens in their own order.

    Raises:
        ValueError: for one of random orders.
    """
    if model.config.order != "given":
        raise ValueError(
            "the task completion needs an AR model of the tokens' own order, got one of random ones"
        )


def given_of(tokens: int) -> list[int]:
    """How many are given: 1, 2, 4, ... and all but one."""
    return sorted({k for k in (*prefix_lengths(tokens), tokens - 1) if 0 < k < tokens})


def completion(
    drawer: Drawer, pairs: Pairs, judge: Judge, fidelity: Fidelity | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """By guidance and number of tokens that are given: what the judge says, and distances.

    Each image is completed from its own tokens, for the caption that it would be drawn from.

    Args:
        drawer: draws the rest.
        pairs: whose first images are completed.
        judge: of the images.
        fidelity: takes distances to all images of the pairs, where they are asked for.
    """
    captions = prompts(drawer.experiment, pairs)
    orderer = drawer.orderer
    real = pairs.images[: len(captions)].split(BATCH)
    tokens = torch.cat([orderer.encode(some.to(orderer.device)) for some in real])

    def judged(count: int, sampling: Sampling) -> dict[str, Any]:
        images: Tensor = decoded(orderer, drawer.draw(captions, sampling, tokens[:, :count]))
        return {**judge.score(images), **({"fidelity": fidelity.of(images)} if fidelity else {})}

    return {
        name: {str(k): judged(k, sampling) for k in given_of(tokens.shape[1])}
        for name, sampling in samplings(drawer.experiment).items()
    }

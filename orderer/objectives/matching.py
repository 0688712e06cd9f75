"""Matching: is this said of that image? The wrong pairs are those that contrast finds nearest.

B batch of one process   J prefixes   E size of the embedding
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


class Negatives(NamedTuple):
    """A wrong partner for each pair of a batch, both ways."""

    texts: Int[Tensor, "B"]
    """For each image, whose caption it is shown with."""
    images: Int[Tensor, "B"]
    """For each caption, which image it is shown with."""
    exist: Bool[Tensor, "B"]
    """False where every caption of the batch is equal to the pair's own: it has none."""


@torch.no_grad()
def hard_negatives(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B J E"],
    captions: Int[Tensor, "B J"],
    scale: Float[Tensor, ""],
    places: Int[Tensor, "B"],
    generator: torch.Generator | None = None,
) -> Negatives:
    """Draw wrong partners with the probabilities that contrast gives them; an equal caption never.

    Each pair draws at a prefix of its own, among images at this prefix and what is said at it.
    They are those of one process: pairs of others would bring their tokens along.

    Args:
        images: unit embeddings at each prefix.
        texts: unit embeddings of the caption that each image has at each prefix.
        captions: a number per caption, the same for equal captions.
        scale: the inverse temperature.
        places: which of the prefixes each pair is taken at.
        generator: source of the draws, on the embeddings' device.

    Source: Li et al. 2021, "ALBEF", section 3.2, https://arxiv.org/abs/2107.07651.
    """
    rows = torch.arange(len(images), device=images.device)
    similar = scale.float() * torch.einsum("ipe,jpe->pij", images.float(), texts.float())
    same = (captions.T[:, :, None] == captions.T[:, None, :])[places, rows]  # [B, B]
    exist = ~same.all(dim=1)
    to_texts, to_images = similar[places, rows], similar.mT[places, rows]
    return Negatives(_draw(to_texts, same, generator), _draw(to_images, same, generator), exist)


def _draw(
    similar: Float[Tensor, "B B"], same: Bool[Tensor, "B B"], generator: torch.Generator | None
) -> Int[Tensor, "B"]:
    """Draw a column for each row, none that is the same unless all are."""
    alone = same.all(dim=1, keepdim=True)
    scores = similar.masked_fill(same & ~alone, -torch.inf)
    return torch.multinomial(scores.softmax(dim=1), 1, generator=generator)[:, 0]


def matching_loss(
    right: Float[Tensor, "B"],
    wrong_texts: Float[Tensor, "B"],
    wrong_images: Float[Tensor, "B"],
    exist: Bool[Tensor, "B"],
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the logits of right and wrong pairs, the mean over all that exist."""
    wrong = torch.cat([wrong_texts[exist], wrong_images[exist]])
    logits = torch.cat([right, wrong]).float()
    truth = torch.cat([torch.ones_like(right), torch.zeros_like(wrong)]).float()
    return F.binary_cross_entropy_with_logits(logits, truth)

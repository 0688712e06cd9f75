"""Which caption an image has at each measured prefix, and how stage 2 learns to write it."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from ar import ARModel
from data import Batch
from orderer import OrdererProcessor, Said, prefix_lengths
from recipes.compute import flops_of


def say(batch: Batch, processor: OrdererProcessor, tokens: int, detail: bool) -> Said:
    """Tokenise what is said of a batch's images.

    Args:
        batch: of pairs.
        processor: of the orderer.
        tokens: K.
        detail: whether growing prefixes have growing captions, see `growing`; else all of them have
            the caption that was drawn.
    """
    number = len(prefix_lengths(tokens))
    if detail:
        return processor.said([growing(of_one, number) for of_one in batch.every])
    return processor.said([[caption] * number for caption in batch.phrases])


def growing(captions: Sequence[str], number: int) -> list[str]:
    """Spread captions that grow in detail over the prefixes: the first to the shortest, the last
    to the longest.
    """
    last = len(captions) - 1
    return [captions[round(last * place / max(1, number - 1))] for place in range(number)]


def loss_of_writing(
    model: ARModel, tokens: Tensor, captions: Sequence[str], processor: OrdererProcessor
) -> Tensor:
    """How badly an AR model writes captions from a prefix of their tokens, one of the measured
    ones, drawn for all of them together.
    """
    lengths = prefix_lengths(tokens.shape[1])
    k = lengths[int(torch.randint(len(lengths), ()))]
    return model.caption_loss(tokens[:, :k], processor.text(captions).to(tokens.device))


def flops_of_writing(
    model: ARModel, tokens: Tensor, captions: Sequence[str], processor: OrdererProcessor
) -> int:
    """Operations of learning to write in one step: the mean over the prefixes that may be drawn."""
    text, lengths = processor.text(captions).to(tokens.device), prefix_lengths(tokens.shape[1])

    def write(k: int) -> None:
        loss = model.caption_loss(tokens[:, :k], text)
        if loss.requires_grad:  # a model that does not learn only reads
            loss.backward()

    return sum(flops_of(partial(write, k)) for k in lengths) // len(lengths)

"""Which caption an image has at each measured prefix."""

from collections.abc import Sequence

from data import Batch
from orderer import OrdererProcessor, Said, prefix_lengths


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

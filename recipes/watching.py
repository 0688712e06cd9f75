"""What is watched while an orderer changes under an AR model: the same pairs, again and again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ar.joint import Limits, broken
from data import Pairs
from orderer import Orderer, OrdererProcessor, prefix_lengths
from orderer.evaluation import (
    entropy_rank,
    explained_by_before,
    mean_psnr,
    participation_rank,
    retrieval_metrics,
)
from recipes.decoding import decoded

SHOWN = "rank", "recall", "psnr"
"""In the line that people watch."""


class Watch:
    """The figures of an orderer on pairs that nothing learns from, and their limits.

    Args:
        pairs: to measure on.
        processor: reads their captions, each image's last.
        orderer: as it is before the training: what later figures are compared with.
    """

    def __init__(self, pairs: Pairs, processor: OrdererProcessor, orderer: Orderer) -> None:
        self.images = pairs.images.to(orderer.device)
        self.texts = processor.text([said[-1] for said in pairs.captions]).to(orderer.device)
        self.first = encoded(orderer, self.images)
        self.start = self.measure(orderer)

    @torch.no_grad()
    def measure(self, orderer: Orderer) -> dict[str, float]:
        """Take all figures.

        `rank` and `entropy_rank`: directions that the tokens use. `deviation`: of all channels, as
        a share of the start's. `redundancy`: share of a token that those before it explain.
        `drift`: 1 - the correlation of a channel with itself at the start, the mean over all of
        them, so that tokens that change places have drifted. `recall`:
        R@1 of images by captions, the mean over the measured prefixes, and `recall_K` at each.
        `psnr`: from all tokens, and `psnr_1` from the first.
        """
        was_training = orderer.training
        orderer.eval()
        tokens = encoded(orderer, self.images)
        figures = {
            "rank": participation_rank(tokens),
            "entropy_rank": entropy_rank(tokens),
            "deviation": (tokens.std(dim=0).norm() / self.first.std(dim=0).norm()).item(),
            "redundancy": explained_by_before(tokens)[1:].mean().item(),
            "drift": drift(self.first, tokens),
            **self._found(orderer, tokens),
            "psnr": self._rebuilt(orderer, tokens),
            "psnr_1": self._rebuilt(orderer, tokens[:, :1]),
        }
        orderer.train(was_training)
        return figures

    def complaint(self, now: dict[str, float], limits: Limits) -> str | None:
        """Which limit is broken; None, if none."""
        return broken(self.start, now, limits)

    def _found(self, orderer: Orderer, tokens: Tensor) -> dict[str, float]:
        at = orderer.embed_tokens(tokens).float().cpu()  # [N, K, E]
        texts = orderer.embed_texts(self.texts).float().cpu()
        owner = torch.arange(len(texts))
        lengths = prefix_lengths(orderer.config.tokens)
        recall = [
            retrieval_metrics(at[:, k - 1], texts, owner)["text_to_image"]["r1"] for k in lengths
        ]
        each = {f"recall_{k}": value for k, value in zip(lengths, recall, strict=True)}
        return {"recall": _mean(recall), **each}

    def _rebuilt(self, orderer: Orderer, tokens: Tensor) -> float:
        return mean_psnr(self.images.cpu(), decoded(orderer, tokens))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def drift(before: Float[Tensor, "N K D"], after: Float[Tensor, "N K D"]) -> float:
    """1 - the mean correlation of a channel with itself: 0 to 2; a silent channel has none."""
    first, second = ((x - x.mean(dim=0)).double() for x in (before, after))
    norms = first.norm(dim=0) * second.norm(dim=0)
    return 1 - ((first * second).sum(dim=0) / norms.clamp(min=1e-12)).mean().item()


@torch.no_grad()
def encoded(orderer: Orderer, images: Tensor, batch: int = 250) -> Tensor:
    """Tokens of many images."""
    return torch.cat([orderer.encode(some) for some in images.split(batch)]).float()

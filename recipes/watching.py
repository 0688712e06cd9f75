"""What is watched while an orderer changes under an AR model: the same pairs, again and again."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ar.joint import Limits, broken, kept_deviations
from data import Pairs
from orderer import Orderer, OrdererProcessor, prefix_lengths
from orderer.evaluation import (
    entropy_rank,
    explained_by_before,
    explained_by_one_before,
    mean_psnr,
    participation_rank,
    rank_correlation,
)
from recipes.decoding import decoded
from recipes.probing import tokens_of

SAID = 0.01
"""Least novelty that a token had which can lose some."""
SHOWN = (
    *("rank", "deviation", "redundancy", "novelty", "order_drift"),
    *("recall", "psnr", "share", "cosine"),
)
"""In the line that people watch."""
CHANGED = 16
"""Images of which one token after the other is taken away."""


class Watch:
    """The figures of an orderer on pairs that stage 3 does not learn from, and their limits.

    Stages 1 and 2 have learned from them: what counts is how figures change. With few pairs ranks
    and redundancy are too small, those of many directions most.

    Args:
        pairs: to measure on.
        processor: reads their captions, each image's last.
        orderer: as it is before the training: what later figures are compared with.
    """

    def __init__(self, pairs: Pairs, processor: OrdererProcessor, orderer: Orderer) -> None:
        self.pairs = pairs
        captions = [said[-1] for said in pairs.captions]
        different = list(dict.fromkeys(captions))
        self.texts = processor.text(different).to(orderer.device)
        self.said = torch.tensor([different.index(caption) for caption in captions])
        self.first = self._encoded(orderer)
        self.importance = importance(orderer, self.first[:CHANGED])
        self.novelty = novelty(self.first)
        self.start = self.measure(orderer)

    @torch.no_grad()
    def measure(self, orderer: Orderer) -> dict[str, float]:
        """Take all figures.

        `rank` and `entropy_rank`: directions that the tokens use. `deviation`: of the position that
        has lost most, as a share of its start's; `channel_deviation`: the same of single channels
        of positions, that which a tenth of them fall below, and `least_channel_deviation` of the
        one that has lost most. `redundancy`: share of a token that those before it explain.
        `novelty`: share that a token has kept of what no single one before it says, of that which
        kept least: few pairs know better what one token says than what many do.
        `order_drift`: 1 - the rank correlation of what each position matters for the image, now and
        at the start. `token_drift`: 1 - the correlation of a channel with itself at the start, the
        mean over all of them. `recall`: share of the images to which their own caption is the
        nearest of all that differ, the mean over the measured prefixes, and `recall_K` at each.
        `psnr`: from all tokens, and `psnr_1` from the first.
        """
        was_training = orderer.training
        orderer.eval()
        tokens = self._encoded(orderer)
        figures = {
            "rank": participation_rank(tokens),
            "entropy_rank": entropy_rank(tokens),
            **kept_deviations(self.first, tokens),
            "redundancy": explained_by_before(tokens)[1:].mean().item(),
            "novelty": kept_novelty(self.novelty, novelty(tokens)),
            "order_drift": order_drift(self.importance, importance(orderer, tokens[:CHANGED])),
            "token_drift": token_drift(self.first, tokens),
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
        lengths = prefix_lengths(orderer.config.tokens)
        nearest = [(at[:, k - 1] @ texts.T).argmax(dim=1) for k in lengths]
        recall = [(own == self.said).double().mean().item() for own in nearest]
        each = {f"recall_{k}": value for k, value in zip(lengths, recall, strict=True)}
        return {"recall": _mean(recall), **each}

    def _rebuilt(self, orderer: Orderer, tokens: Tensor) -> float:
        return mean_psnr(self.pairs.images, decoded(orderer, tokens))

    @torch.no_grad()
    def _encoded(self, orderer: Orderer) -> Float[Tensor, "N K D"]:
        return tokens_of(orderer, self.pairs).float()


def novelty(tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "K"]:
    """Share of each token that no single one before it explains; 1 of the first."""
    return 1 - explained_by_one_before(tokens)


def kept_novelty(before: Float64[Tensor, "K"], after: Float64[Tensor, "K"]) -> float:
    """The least share that a token which said something new still says."""
    spoke = before > SAID
    return (after[spoke] / before[spoke]).min().item()


@torch.no_grad()
def importance(orderer: Orderer, tokens: Float[Tensor, "N K D"]) -> Float64[Tensor, "K"]:
    """How much images change where a token is replaced by the mean one of its place."""
    whole = orderer.decode(tokens).double()
    changes = []
    for k, mean in enumerate(tokens.mean(dim=0)):
        without = tokens.clone()
        without[:, k] = mean
        changes.append((orderer.decode(without) - whole).square().mean())
    return torch.stack(changes).cpu()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def order_drift(before: Float64[Tensor, "K"], after: Float64[Tensor, "K"]) -> float:
    """1 - the rank correlation of what positions matter: 0 to 2; 0 where there was no order."""
    return 1 - rank_correlation(before, after) if len(before.unique()) > 1 else 0.0


def token_drift(before: Float[Tensor, "N K D"], after: Float[Tensor, "N K D"]) -> float:
    """1 - the mean correlation of a channel with itself: 0 to 2; a silent channel has none."""
    first, second = ((x - x.mean(dim=0)).double() for x in (before, after))
    norms = first.norm(dim=0) * second.norm(dim=0)
    return 1 - ((first * second).sum(dim=0) / norms.clamp(min=1e-12)).mean().item()

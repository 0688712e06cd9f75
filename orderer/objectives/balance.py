"""Balance: each term pulls at an image's tokens with its share, however steep it is.

The gradients of contrast and of reconstruction differ up to a hundredfold, and by how much changes
in training; a fixed weight cannot follow.

Source: Défossez et al. 2022 (EnCodec), section 3.4, "balancer", https://arxiv.org/abs/2210.13438.
Theirs scales the gradients of every step; here the norms are measured now and then, since each
costs a backward pass through what lies behind the tokens.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn

from .contrastive import gather

BALANCED_EVERY = 10
"""Steps between two measurements."""
UNMEASURED = -1.0
KEPT = 0.8
"""Of the moving average, at each measurement."""


class Balance(nn.Module):
    """Moving averages of how hard each unweighted term pulls; saved, so that resuming is exact."""

    pulls: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.register_buffer("pulls", torch.full((len(names),), UNMEASURED))

    def due(self, step: int, terms: Collection[str]) -> bool:
        """Whether to measure at a step: every few, and when a term has come in."""
        return step % BALANCED_EVERY == 0 or any(self._pull(name) == UNMEASURED for name in terms)

    @torch.no_grad()
    def measure(self, pulls: Mapping[str, Tensor]) -> None:
        """Take in the norms of the unweighted terms' gradients, the mean over processes."""
        for name, pull in pulls.items():
            place = self.names.index(name)
            now, before = gather(pull.reshape(1)).mean(), self.pulls[place]
            self.pulls[place] = torch.where(before >= 0, KEPT * before + (1 - KEPT) * now, now)

    def weights(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Weights by which the terms pull in the proportion of their shares.

        The sum of the pulls stays what it would be with the shares as weights. A term that pulls
        at no token keeps its share as its weight.
        """
        pulls = {name: self._pull(name) for name in shares if self._pull(name) > 0}
        if not pulls:
            return dict(shares)
        whole = sum(shares[name] * pull for name, pull in pulls.items())
        part = whole / sum(shares[name] for name in pulls)
        return {
            name: share * part / pulls[name] if name in pulls else share
            for name, share in shares.items()
        }

    def _pull(self, name: str) -> float:
        return float(self.pulls[self.names.index(name)])

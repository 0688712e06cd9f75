"""Transfer: does what is learned at some positions serve at others?

    N images   K tokens   P bins of positions   C chunks of the test images

For each bin a small model learns all positions but those, and is then asked there. It is told no
position, for it could not know one that it was never shown; it may count the tokens it has seen. It
is measured between a blind model (0: it knows the marginal) and one that learned everywhere and is
told the position (1: all that can be gained). On the same scale: what is lost without any position,
and what the model that is told one loses where it is told the one before.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..model import ARModel
from .gradient_conflict import position_bins
from .sequences import Make, Sequences, fresh, learn, losses_of

CHUNKS = 16
"""Of the test images: their spread tells whether anything is gained at all."""
DRAWS = 4
"""Of the loss's noise, for each chunk; all models get the same."""
SURE = 3.0
"""Standard errors that the gain of a position must be away from 0."""


@dataclass(frozen=True, kw_only=True)
class Schooling:
    """How small models learn."""

    steps: int = 400
    batch_size: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    """Of the start, which all models share, and of the draws."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Transfer:
    """What is gained over a blind model, and what left-out bins gain by the others."""

    gains: Float[Tensor, "C K"]
    """Of a model that learned everywhere, in its head's own loss."""
    shares: Sequence[float | None]
    """Of what is to be gained at each bin; below 0 where the others mislead. None where nothing is,
    for sure, by the model that learned there."""
    without_positions: float | None
    """Share of all that is to be gained which a model loses that is told no position."""
    shifted: float | None
    """The same of a model that learned everywhere, where each token but the first is told the
    position before its own; above 1 where that is worse than to see nothing."""

    @property
    def mean(self) -> float | None:
        """Of the shares, each taken into 0..1; None if there is none."""
        known = [min(max(share, 0.0), 1.0) for share in self.shares if share is not None]
        return sum(known) / len(known) if known else None


def transfer(
    make: Make,
    train: Sequences,
    test: Sequences,
    *,
    bins: int = 4,
    schooling: Schooling | None = None,
) -> Transfer:
    """Train bins + 3 models, and compare their losses on test images.

    Args:
        make: of a small model with any head.
        train: what they learn.
        test: other images, CHUNKS or more.
        bins: at most; fewer tokens make fewer.
        schooling: the same for all.

    Raises:
        ValueError: for fewer than 2 bins, or too few test images.
    """
    if len(test) < CHUNKS:
        raise ValueError(f"a transfer needs at least {CHUNKS} test images, got {len(test)}")
    how = schooling or Schooling()
    length = train.tokens.shape[1]
    marginal = _losses(_schooled(make, train, how, blind=True), test, blind=True)  # [C, K]
    whole = _schooled(make, train, how)
    gained = marginal - _losses(whole, test)
    shifted = marginal - _losses(_told_the_one_before(whole), test)
    untold = marginal - _losses(_schooled(make, train, how, told=False), test)
    shares = []
    for part in position_bins(length, bins):
        others = _schooled(make, train, how, left_out=part, told=False)
        elsewhere = marginal - _losses(others, test)
        shares.append(_share(elsewhere[:, part], gained[:, part]))
    return Transfer(
        gains=gained,
        shares=shares,
        without_positions=_lost(untold, gained),
        shifted=_lost(shifted[:, 1:], gained[:, 1:]),
    )


def _schooled(
    make: Make,
    train: Sequences,
    how: Schooling,
    *,
    left_out: slice | None = None,
    told: bool = True,
    blind: bool = False,
) -> ARModel:
    model = fresh(make, train, how.seed)
    if not told:
        _forget_positions(model)
    at = torch.ones(train.tokens.shape[1], dtype=torch.bool)
    if left_out is not None:
        at[left_out] = False
    learn(
        model,
        train,
        steps=how.steps,
        batch_size=how.batch_size,
        learning_rate=how.learning_rate,
        seed=how.seed,
        at=at,
        blind=blind,
    )
    return model


def _forget_positions(model: ARModel) -> None:
    """Make every position look alike, for good."""
    for table in _positions(model):
        torch.nn.init.zeros_(table)
        table.requires_grad_(False)


@torch.no_grad()
def _told_the_one_before(model: ARModel) -> ARModel:
    """A copy that takes each position but the first for the one before it."""
    misled = copy.deepcopy(model)
    for table in _positions(misled):
        table.copy_(table.roll(1, dims=0))
    return misled


def _positions(model: ARModel) -> list[torch.nn.Parameter]:
    """The trunk's, and those of a head that reads tokens too: a row for each."""
    return [table for name, table in model.named_parameters() if name.endswith("positions")]


@torch.no_grad()
def _losses(model: ARModel, test: Sequences, *, blind: bool = False) -> Float[Tensor, "C K"]:
    random = torch.Generator(test.tokens.device).manual_seed(0)
    of_chunks = [
        torch.stack(
            [losses_of(model, test, chosen, random, blind=blind) for _ in range(DRAWS)]
        ).mean(dim=0)
        for chosen in torch.arange(len(test)).tensor_split(CHUNKS)
    ]
    return torch.stack(of_chunks).double()


def _lost(gained: Float[Tensor, "C k"], most: Float[Tensor, "C k"]) -> float | None:
    """The share of what can be gained that is not."""
    kept = _share(gained, most)
    return None if kept is None else 1 - kept


def _share(gained: Float[Tensor, "C k"], most: Float[Tensor, "C k"]) -> float | None:
    """Of what can be gained at the positions where surely something can; None without any.

    Where nothing can be gained, as at a first token that has no condition, nothing can be handed
    over: what a model says there that never learned it is no matter of transfer.
    """
    mean, error = most.mean(dim=0), most.std(dim=0) / len(most) ** 0.5  # [k]
    sure = mean > SURE * error
    if not bool(sure.any()):
        return None
    return (gained[:, sure].mean() / mean[sure].mean()).item()

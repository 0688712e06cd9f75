"""Token sequences with what stands before them, and small models that learn them.

N images   B batch   K tokens   D channels of a token
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..config import ARConfig
from ..model import ARModel
from ..trunk import Condition
from .fitting import fit

Make = Callable[[], ARModel]
"""Makes a model that has learned nothing."""


def _nothing(model: ARModel, chosen: Int[Tensor, "B"]) -> Condition:
    return model.unconditioned(len(chosen))


@dataclass(frozen=True, kw_only=True, eq=False)
class Sequences:
    """Tokens of images, and how a model is told their conditions."""

    tokens: Float[Tensor, "N K D"]
    condition: Callable[[ARModel, Int[Tensor, "B"]], Condition] = _nothing
    """Of the images with these indices; nothing stands before the tokens by default."""

    def __len__(self) -> int:
        return len(self.tokens)


def fresh(make: Make, train: Sequences, seed: int) -> ARModel:
    """A model that has learned nothing but the statistics of the tokens.

    Raises:
        ValueError: if a channel never varies at a position.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().to(train.tokens.device)
    model.set_statistics(train.tokens.mean(dim=0), train.tokens.std(dim=0))
    model.head.fit(model.standardise(train.tokens))
    return model


def learn(
    model: ARModel,
    train: Sequences,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    at: Bool[Tensor, "K"] | None = None,
    blind: bool = False,
) -> None:
    """Lower the mean loss over positions; the model is in eval mode afterwards.

    Args:
        model: to train.
        train: what it learns.
        steps: updates.
        batch_size: images in one.
        learning_rate: of the first update.
        seed: of the draws and the loss's noise.
        at: True where the loss counts; at every position by default.
        blind: whether the model sees neither the condition nor the tokens before.
    """
    random = torch.Generator(train.tokens.device).manual_seed(seed)

    def loss(chosen: Int[Tensor, "B"]) -> Float[Tensor, ""]:
        losses = losses_of(model, train, chosen, random, blind=blind)
        return losses.mean() if at is None else losses[at].mean()

    fit(
        model,
        loss,
        examples=len(train),
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
    )


def losses_of(
    model: ARModel,
    sequences: Sequences,
    chosen: Int[Tensor, "B"],
    generator: torch.Generator,
    *,
    blind: bool,
) -> Float[Tensor, "K"]:
    """The loss at each position; a blind model is shown each token's mean as the tokens before."""
    tokens = sequences.tokens[chosen]
    if not blind:
        return model.loss(tokens, sequences.condition(model, chosen), generator)
    hidden = model.mean.expand_as(tokens)
    return model.loss(tokens, model.unconditioned(len(tokens)), generator, context=hidden)


def small_model(tokens: int, channels: int) -> ARModel:
    """A model of squared error that learns in seconds; nothing stands before its tokens."""
    return ARModel(
        ARConfig(
            tokens=tokens,
            token_dim=channels,
            condition="none",
            width=32,
            heads=2,
            layers=2,
            mlp_width=64,
            head="regression",
            head_width=48,
            head_layers=1,
        )
    )

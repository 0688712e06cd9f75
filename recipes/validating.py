"""How an AR model fares on pairs that it does not learn from.

The flat training loss hides what happens: it depends on where training looks for noise, and moves
little while samples get better. Watched instead: nats per dimension, and errors at fixed timesteps.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ar import ARModel
from data import TokenStore
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.conditions import condition_on
from recipes.engine.run import Run

TIMESTEPS = (0.1, 0.3, 0.5, 0.7, 0.9)
BATCH = 32
"""Pairs that share their draws of noise: the same ones however many processes there are."""
SEED = 0
"""Of the noise, the same at every validation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Validation:
    """The held pairs, and what reads their captions."""

    store: TokenStore
    caption: int
    """The place of the caption that is each image's condition."""
    orderer: ImageSequence
    processor: OrdererProcessor
    every: int
    """Steps between two validations."""

    def is_due(self, step: int, run: Run) -> bool:
        """Whether it is time for one after `step` updates; the last has one in any case."""
        return step > 0 and (step % self.every == 0 or step == run.steps)

    def measure(self, model: nn.Module, run: Run) -> dict[str, float]:
        """`validation`: nats per dimension, or the loss of a head without a likelihood; and
        `error_at_T` for heads that denoise. Each pair counts once, on one of the processes.
        """
        assert isinstance(model, ARModel)
        was_training = model.training
        model.eval()
        blocks = range(0, len(self.store), BATCH)
        sums = torch.zeros(1 + len(TIMESTEPS) * model.head.has_timesteps, dtype=torch.float64)
        for start in blocks[run.rank :: run.world]:
            indices = list(range(start, min(start + BATCH, len(self.store))))
            sums += len(indices) * self._means(model, indices)
        model.train(was_training)
        total = run.accelerator.reduce(sums.to(run.device), "sum") / len(self.store)
        names = ["validation", *(f"error_at_{t}" for t in TIMESTEPS)]
        return dict(zip(names, total.tolist(), strict=False))

    def of_both(self, model: nn.Module, average: nn.Module, run: Run) -> dict[str, float]:
        """The figures of a model and, with `_ema` behind their names, of its average."""
        averaged = self.measure(average, run).items()
        return {**self.measure(model, run), **{f"{name}_ema": value for name, value in averaged}}

    @torch.no_grad()
    def _means(self, model: ARModel, indices: list[int]) -> torch.Tensor:
        tokens = self.store.tokens[indices].to(model.device)
        said = [self.store.captions[index][self.caption] for index in indices]
        condition = condition_on(said, model, self.orderer, self.processor)
        noise = torch.Generator(model.device).manual_seed(SEED + indices[0])
        if model.head.has_likelihood:
            nats = model.log_prob(tokens, condition, generator=noise)
            found = [-nats.mean()[None] / model.config.token_dim]
        else:
            found = [model.loss(tokens, condition, noise).mean()[None]]
        if model.head.has_timesteps:
            found.append(model.errors_at(tokens, condition, TIMESTEPS, noise))
        return torch.cat(found).double().cpu()

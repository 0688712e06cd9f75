"""What all heads have in common: they learn, draw and, where they can, score a token.

    B batch   K tokens   R rows (one token of one image)   D channels of a token   W width
    S noises for a token   N channels of each

A drawn token is a function of the trunk's state and of so many standard normal numbers; whose
numbers they are, the sampler decides, so an image does not depend on the batch it is drawn in.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..config import ARConfig
from ..settings import Sampling
from ..trunk import Condition, Trunk


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What has been seen when a token is drawn."""

    states: Float[Tensor, "R W"]
    """The trunk's, given the condition and the tokens before."""
    without: tuple[Float[Tensor, "R W"], ...] = ()
    """The same without one of these, away from which a token is guided; none without guidance."""
    scales: tuple[float, ...] = ()
    """Of the guidance away from each."""
    peek: Callable[[Float[Tensor, "rows 1 W"]], Float[Tensor, "rows W"]] | None = None
    """Runs one more place through the trunk, in the order of `rows`, and forgets it."""
    position: int = 0
    """Of the token to draw, from 0."""

    @property
    def rows(self) -> Float[Tensor, "rows W"]:
        """The states, then those without something."""
        return torch.cat([self.states, *self.without])

    def guided(self, said: Float[Tensor, "rows C"]) -> Float[Tensor, "R C"]:
        """What a head said of all rows, pushed away from what it said without something.

        Of densities: p times (p / p_without) ^ (scale - 1), for each thing that is missing. One
        push is `orderer.flow.guide`; several add up.
        """
        whole, *without = said.chunk(1 + len(self.without))
        pairs = zip(without, self.scales, strict=True)
        return whole + sum((scale - 1) * (whole - each) for each, scale in pairs)


Draw = Callable[[Seen, Float[Tensor, "R S N"]], Float[Tensor, "R D"]]
"""Turns what was seen and standard normal noise into a token of each row."""


class Head(nn.Module, ABC):
    """The distribution of standardised tokens, each given the ones before it."""

    has_likelihood: bool = False
    has_timesteps: bool = False
    """Whether it denoises, at timesteps from 0 (noise) to 1 (data)."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.config = config

    def fit(self, tokens: Float[Tensor, "N K D"]) -> None:
        """Take from standardised tokens what training does not learn."""

    @abstractmethod
    def loss_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """What training makes small, a number for each token.

        Args:
            trunk: reads what is before a token.
            tokens: to learn.
            context: the same tokens as they are looked back at.
            condition: before all tokens.
            generator: of noise and timesteps, on the tokens' device.
        """

    def errors_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        t: Float[Tensor, "T #B 1"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B K"]:
        """Squared error at each of T timesteps, unweighted; see `loss_through`.

        Raises:
            ValueError: for a head that knows no timesteps.
        """
        raise self._has_no_timesteps()

    def guess_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        t: Float[Tensor, "T #B 1"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B K D"]:
        """What the head takes noisy tokens for at each of T timesteps; see `loss_through`.

        Raises:
            ValueError: for a head that knows no timesteps.
        """
        raise self._has_no_timesteps()

    def draw_timesteps(
        self, number: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{number}"]:
        """Timesteps as training draws them.

        Raises:
            ValueError: for a head that knows no timesteps.
        """
        raise self._has_no_timesteps()

    def _has_no_timesteps(self) -> ValueError:
        return ValueError(f"the head {self.config.head!r} knows no timesteps")

    @abstractmethod
    def log_prob_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """The density of each token given those before it, in nats.

        Args:
            trunk: see `loss_through`.
            tokens: with noise of deviation `floor`.
            context: the same without it.
            condition: before all tokens.
            floor: of the noise, which the density is of too; 0 only where that is a closed form.
            generator: where a density is estimated, on the tokens' device.

        Raises:
            ValueError: for a head that has no likelihood.
        """

    @abstractmethod
    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        """How many standard normal numbers a token is drawn from, S x N."""

    @abstractmethod
    def drawing(self, sampling: Sampling) -> Draw:
        """Prepare to draw tokens; what does not depend on them is computed here, once."""


class StateHead(Head):
    """A head that knows of the tokens before only what the trunk's state says."""

    @abstractmethod
    def loss(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """What training makes small, a number for each token."""

    def log_prob(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """The density of each token, in nats, see `log_prob_through`."""
        raise ValueError(f"the head {self.config.head!r} has no likelihood")

    def loss_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        return self.loss(tokens, trunk(context[:, :-1], condition), generator)

    def log_prob_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        return self.log_prob(tokens, trunk(context[:, :-1], condition), floor, generator)


def uniform_of(normal: Tensor) -> Tensor:
    """Turn standard normal numbers into ones uniform in 0..1."""
    return torch.special.ndtr(normal.double()).to(normal)


def chosen(shares: Float[Tensor, "R C"], normal: Float[Tensor, "R"]) -> Tensor:
    """Choose one of C for each row, with the shares as chances, by a standard normal number."""
    upto = shares.double().cumsum(dim=1)  # [R, C]
    place = uniform_of(normal).double()[:, None] * upto[:, -1:]
    return torch.searchsorted(upto, place)[:, 0].clamp(max=shares.shape[1] - 1)

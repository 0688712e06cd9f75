"""The mixture head: a token is drawn from a mixture of Gaussians, and scored by it exactly.

    R rows   D channels of a token   W width of the trunk   M Gaussians   C candidates

Source: Tschannen et al. 2023, "GIVT: Generative Infinite-Vocabulary Transformers", section 3.2,
https://arxiv.org/abs/2312.02116; guidance by choosing among candidates: section 3.4 there rejects,
Zhao et al. 2025 (ARINAR) weights them, https://arxiv.org/abs/2503.02883.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ..config import ARConfig
from ..settings import Sampling
from .head import Draw, Seen, StateHead, chosen
from .plain_net import PlainNet

LEAST_DEVIATION = 1e-3
"""In deviations of a channel over the training set: no Gaussian may close in on one token."""
CANDIDATES = 64
"""Of a guided token."""


class Mixture(NamedTuple):
    """A mixture for each row, its Gaussians without correlation."""

    log_share: Float[Tensor, "*n M"]
    mean: Float[Tensor, "*n M D"]
    deviation: Float[Tensor, "*n M D"]

    def blurred(self, floor: float) -> "Mixture":
        """The mixture of the same with noise of deviation `floor`."""
        return self._replace(deviation=(self.deviation.square() + floor**2).sqrt())

    def log_prob(self, x: Float[Tensor, "*m D"]) -> Float[Tensor, "*m"]:
        """Nats of each row."""
        far = ((x[..., None, :] - self.mean) / self.deviation).square()  # [*m, M, D]
        each = -0.5 * (far + 2 * self.deviation.log() + math.log(2 * math.pi)).sum(dim=-1)
        return (self.log_share + each).logsumexp(dim=-1)


class MixtureHead(StateHead):
    """Predicts shares, means and deviations; what follows from them is computed in fp32."""

    has_likelihood = True

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        out = config.components * (2 * config.token_dim + 1)
        self.net = PlainNet(config.width, config.head_width, config.head_layers, out)
        with torch.no_grad():  # Gaussians that are all alike would stay so
            self.net.out.bias[: config.components * config.token_dim].normal_()

    def mixture(self, states: Float[Tensor, "*n W"]) -> Mixture:
        """The mixture of each row."""
        config = self.config
        size = config.components * config.token_dim
        mean, deviation, shares = (
            self.net(states).float().split([size, size, config.components], dim=-1)
        )
        apart = (config.components, config.token_dim)
        return Mixture(
            log_share=shares.log_softmax(dim=-1),
            mean=mean.unflatten(-1, apart),
            deviation=F.softplus(deviation.unflatten(-1, apart)) + LEAST_DEVIATION,
        )

    def loss(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """Negative log-likelihood, in nats per channel."""
        return -self.log_prob(tokens, states, 0.0) / self.config.token_dim

    def log_prob(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        return self.mixture(states).blurred(floor).log_prob(tokens.float())

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return (CANDIDATES + 1 if sampling.scales else 1), self.config.token_dim + 1

    def drawing(self, sampling: Sampling) -> Draw:
        """Draw a token; of a guided one, several, then one of them by its guided density."""

        def draw(seen: Seen, noise: Tensor) -> Tensor:
            of_row = self.mixture(seen.states)
            if not seen.without:
                return _drawn(of_row, noise[:, :1], sampling.temperature)[:, 0]
            candidates = _drawn(of_row, noise[:, 1:], sampling.temperature)  # [R, C, D]
            all_rows = (of_row, *map(self.mixture, seen.without))
            said = torch.cat([_each(one).log_prob(candidates) for one in all_rows])  # [rows, C]
            better = seen.guided(said) - said[: len(candidates)]
            which = chosen(better.softmax(dim=1), noise[:, 0, -1])
            return candidates[torch.arange(len(candidates)), which]

        return draw


def _each(mixture: Mixture) -> Mixture:
    """The same mixture for every candidate of a row."""
    return Mixture(*(part[:, None] for part in mixture))


def _drawn(
    mixture: Mixture, noise: Float[Tensor, "R C E"], temperature: float
) -> Float[Tensor, "R C D"]:
    """One draw of each row's mixture for each noise, whose last channel chooses the Gaussian."""
    shares = mixture.log_share.exp()
    count = noise.shape[1]
    which = chosen(shares.repeat_interleave(count, dim=0), noise[..., -1].flatten())
    which = which.view(-1, count, 1).expand(-1, -1, noise.shape[-1] - 1)  # [R, C, D]
    mean, deviation = mixture.mean.gather(1, which), mixture.deviation.gather(1, which)
    return mean + temperature * deviation * noise[..., :-1]

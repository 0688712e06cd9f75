"""The categorical head: a token is one of a few codes. The control that pays for discreteness.

    R rows   N images   K tokens   D channels of a token   W width of the trunk   V codes

The codes are the centres of k-means over the training tokens; a drawn token is a centre. Its
density counts a token as its code's Gaussian, as wide as the training tokens lie around centres.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from orderer.kmeans import find_centres, nearest

from ..config import ARConfig
from ..settings import Sampling
from .head import Draw, Seen, StateHead, chosen
from .plain_net import PlainNet

FITTED_ON = 50_000
"""Most tokens that the codes are fitted on."""
LEAST_DEVIATION = 1e-3


class CategoricalHead(StateHead):
    """Predicts the code of a token."""

    has_likelihood = True
    centres: Tensor
    deviation: Tensor

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.net = PlainNet(config.width, config.head_width, config.head_layers, config.codes)
        self.register_buffer("centres", torch.randn(config.codes, config.token_dim))
        self.register_buffer("deviation", torch.ones(config.token_dim))

    @torch.no_grad()
    def fit(self, tokens: Float[Tensor, "N K D"]) -> None:
        """Find the codes.

        Raises:
            ValueError: if there are fewer tokens than codes.
        """
        flat = tokens.flatten(0, 1).float()
        random = torch.Generator().manual_seed(0)
        flat = flat[torch.randperm(len(flat), generator=random)[:FITTED_ON].to(flat.device)]
        self.centres.copy_(find_centres(flat, self.config.codes))
        around = flat - self.centres[self.codes(flat)]
        self.deviation.copy_(around.square().mean(dim=0).sqrt().clamp(min=LEAST_DEVIATION))

    def codes(self, tokens: Float[Tensor, "*n D"]) -> Int[Tensor, "*n"]:
        """The nearest code of each token."""
        return nearest(tokens.flatten(0, -2).float(), self.centres.float()).view(tokens.shape[:-1])

    def loss(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """Cross-entropy of the codes, in nats."""
        logits = self.net(states).float().flatten(0, -2)
        codes = self.codes(tokens)
        return F.cross_entropy(logits, codes.flatten(), reduction="none").view(codes.shape)

    def log_prob(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """Of tokens, not of codes: the density of a mixture with fixed centres."""
        share = self.net(states).float().log_softmax(dim=-1).flatten(0, -2)  # [R, V]
        deviation = (self.deviation.float().square() + floor**2).sqrt()
        tokens_apart = tokens.float().flatten(0, -2) / deviation
        centres = self.centres.float() / deviation
        exact = "donot_use_mm_for_euclid_dist"  # codes are tight: the expanded square loses digits
        far = torch.cdist(tokens_apart, centres, compute_mode=exact).square()
        size = deviation.log().sum() + 0.5 * tokens.shape[-1] * math.log(2 * math.pi)
        return ((share - far / 2).logsumexp(dim=-1) - size).view(tokens.shape[:-1])

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return 1, 1

    def drawing(self, sampling: Sampling) -> Draw:
        """Draw a code; a temperature of 0 takes the likeliest."""

        def draw(seen: Seen, noise: Tensor) -> Tensor:
            logits = seen.guided(self.net(seen.rows).float().log_softmax(dim=-1))
            if sampling.temperature == 0:
                return self.centres[logits.argmax(dim=-1)].float()
            shares = (logits / sampling.temperature).softmax(dim=-1)
            return self.centres[chosen(shares, noise[:, 0, 0])].float()

        return draw

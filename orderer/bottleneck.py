"""The bottleneck: what every token has in common, so that stage 2 finds a fixed scale."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

LOG_VARIANCES = (-20.0, 10.0)
"""Bounds of what the kl bottleneck may say, so that nothing overflows."""

SHORTEST = 1e-6
"""Norm below which the sphere bottleneck makes a token no longer."""


class Bottled(NamedTuple):
    """Tokens, and what their description costs."""

    tokens: Float[Tensor, "B K D"]
    kl: Float[Tensor, ""]
    """Nats for each token, 0 but for the kl bottleneck."""
    given: Float[Tensor, "B K C"]
    """What the encoder gave."""


class Bottleneck(nn.Module):
    """The last step of encoding; it has no weights.

    `none` leaves tokens as they are; `norm` gives each zero mean and unit variance over its
    channels; `sphere` gives each the norm sqrt(D), but for one shorter than SHORTEST, so that its
    gradient is bounded, and zero stays zero; `kl` has the encoder say a mean and a variance for
    each channel, and pulls both to those of noise by the term `kl`.

    Sources: `norm`: Wen et al. 2025 (Semanticist, `norm_slots`), https://arxiv.org/abs/2503.08685;
    `sphere`: Ke and Xue 2025 (SphereAR), https://arxiv.org/abs/2509.24335; `kl`: Kingma and Welling
    2013, appendix B, https://arxiv.org/abs/1312.6114.
    """

    def __init__(self, kind: Literal["none", "norm", "sphere", "kl"], token_dim: int) -> None:
        super().__init__()
        self.kind = kind
        self.channels = 2 * token_dim if kind == "kl" else token_dim
        """What the encoder gives for each token."""

    def forward(self, x: Float[Tensor, "B K C"]) -> Float[Tensor, "B K D"]:
        """Make tokens, the most likely ones for `kl`."""
        if self.kind == "norm":
            return normalise_tokens(x)
        if self.kind == "sphere":
            return F.normalize(x, dim=-1, eps=SHORTEST) * x.shape[-1] ** 0.5
        return x.chunk(2, dim=-1)[0] if self.kind == "kl" else x

    def sample(
        self, x: Float[Tensor, "B K C"], generator: torch.Generator | None = None
    ) -> Bottled:
        """Make tokens for training: for `kl` drawn from what the encoder said."""
        if self.kind != "kl":
            return Bottled(self(x), x.new_zeros((), dtype=torch.float32), x)
        mean, log_variance = x.float().chunk(2, dim=-1)
        log_variance = log_variance.clamp(*LOG_VARIANCES)
        noise = torch.randn(mean.shape, device=mean.device, generator=generator)
        nats = (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=-1) / 2
        return Bottled((mean + (log_variance / 2).exp() * noise).to(x.dtype), nats.mean(), x)


def normalise_tokens(tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """Give every token zero mean and unit variance over its channels; nothing is learned."""
    return F.layer_norm(tokens, tokens.shape[-1:])


def add_token_noise(
    tokens: Float[Tensor, "B K D"], most: float, generator: torch.Generator | None = None
) -> Float[Tensor, "B K D"]:
    """Blur tokens by Gaussian noise whose deviation is drawn per image from U(0, most).

    A decoder that has seen blurred tokens forgives the errors of sampled ones.
    Source: Yang et al. 2025, "Latent Denoising Makes Good Visual Tokenizers",
    https://arxiv.org/abs/2507.15856.
    """
    device, dtype = tokens.device, tokens.dtype
    deviation = most * torch.rand(
        len(tokens), 1, 1, device=device, dtype=dtype, generator=generator
    )
    noise = torch.randn(tokens.shape, device=device, dtype=dtype, generator=generator)
    return tokens + deviation * noise

"""The bottleneck: what every token has in common, so that stage 2 finds a fixed scale."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def normalise_tokens(tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
    """Give every token zero mean and unit variance over its channels; nothing is learned.

    Source: Wen et al. 2025, "Principal Components Enable A New Language of Images" (Semanticist,
    `norm_slots`), https://arxiv.org/abs/2503.08685.
    """
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

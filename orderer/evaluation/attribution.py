"""Attribution: which part of the image does each token react to?

B images   H, W height and width   K tokens   D channels of a token
R, C rows and columns of patches

The measure is the Jacobian: how much of the squared change of a token, under small changes of the
pixels, comes from each patch. Its squared norm is estimated by random signs, without bias.

Source: Hutchinson 1990, https://doi.org/10.1080/03610919008812866, on the Jacobian as in Hoffman et
al. 2019, section 2.3, https://arxiv.org/abs/1908.02729.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from ..inputs import in_range
from ..model import Orderer


def attribution_maps(
    orderer: Orderer,
    images: Shaped[Tensor, "B 3 H W"],
    draws: int = 8,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B K R C"]:
    """Share of each token's sensitivity that falls on each patch; a token's shares sum to 1.

    Args:
        orderer: in eval mode.
        images: as `encode` takes them.
        draws: random directions of a token; the relative error falls with their square root.
        generator: of the signs, on the model's device.

    Raises:
        ValueError: for fewer than 1 draw.
    """
    if draws < 1:
        raise ValueError(f"draws must be at least 1, got {draws}")
    pixels = in_range(images).detach().clone().requires_grad_()
    with torch.enable_grad():
        tokens = orderer.encode(pixels)
        squares = torch.stack(
            [
                sum((_squared(tokens[:, k], pixels, generator) for _ in range(draws)), pixels * 0)
                for k in range(tokens.shape[1])
            ],
            dim=1,
        )  # [B, K, 3, H, W]
    patch = orderer.config.patch_size
    of_patches = F.avg_pool2d(squares.detach().sum(dim=2), patch)  # [B, K, R, C]
    return of_patches / of_patches.sum(dim=(2, 3), keepdim=True).clamp(min=1e-30)


def _squared(
    token: Float[Tensor, "B D"], pixels: Float[Tensor, "B 3 H W"], generator: torch.Generator | None
) -> Float[Tensor, "B 3 H W"]:
    """The squared gradient of a token along random signs."""
    shape, device = token.shape, token.device
    signs = torch.randint(0, 2, shape, generator=generator, device=device) * 2.0 - 1
    (gradient,) = torch.autograd.grad((token * signs).sum(), pixels, retain_graph=True)
    return gradient.square()

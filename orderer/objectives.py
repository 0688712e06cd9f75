"""What stage 1 is trained for.

B images of one process   G images of all processes   J prefixes   E size of the embedding
N patches   P values of a patch
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B E"],
    captions: Int[Tensor, "B"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, "J"]:
    """InfoNCE both ways at every prefix, over the batches of all processes.

    Pairs whose caption is equal are all positives and share the target evenly; when captions are
    unique this is CLIP's loss, hence open_clip's `ClipLoss`.

    Args:
        images: unit embeddings at each prefix.
        texts: unit embeddings of the images' captions.
        captions: a number per caption, the same for equal captions.
        scale: the inverse temperature.

    Source: Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020; shared targets as in
    Khosla et al. 2020, equation 2, https://arxiv.org/abs/2004.11362.
    """
    images, texts, captions = gather(images), gather(texts), gather(captions)
    same = (captions[:, None] == captions[None, :]).to(images.dtype)  # [G, G]
    target = same / same.sum(dim=1, keepdim=True)
    logits = scale * torch.einsum("ipe,je->pij", images, texts)  # [J, G, G]
    to_text = -(target * logits.log_softmax(dim=2)).sum(dim=2).mean(dim=1)  # [J]
    to_image = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean(dim=1)  # [J]
    return (to_text + to_image) / 2


def gather(local: Tensor) -> Tensor:
    """Stack a tensor over all processes; gradients flow back to the process they came from."""
    if not (dist.is_available() and dist.is_initialized()):
        return local
    return _Gather.apply(local)


class _Gather(torch.autograd.Function):
    """`all_gather` with a gradient.

    torch.distributed.nn has one too, which under gloo gives wrong values, without an error, for
    gradients whose memory is not contiguous, such as einsum's.
    """

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        local = local.contiguous()
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(dist.get_world_size())[dist.get_rank()]


def reconstruction_loss(
    rebuilt: Float[Tensor, "B N P"], patches: Float[Tensor, "B N P"]
) -> Float[Tensor, ""]:
    """Mean squared error of patches whose values lie in [-1, 1]."""
    return F.mse_loss(rebuilt.float(), patches)

"""Contrast at every prefix: images find their captions among those of the whole batch.

B images of one process   G images of all processes   J prefixes   E size of the embedding
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B J E"],
    captions: Int[Tensor, "B J"],
    scale: Float[Tensor, ""],
) -> Float[Tensor, "J"]:
    """InfoNCE both ways at every prefix, over the batches of all processes.

    Pairs whose caption is equal are all positives and share the target evenly; when captions are
    unique this is CLIP's loss, hence open_clip's `ClipLoss`. With gradient accumulation the
    negatives are those of the micro-batch: the mean over micro-batches is not the loss of their
    union.

    Args:
        images: unit embeddings at each prefix.
        texts: unit embeddings of the caption that each image has at each prefix.
        captions: a number per caption, the same for equal captions.
        scale: the inverse temperature.

    Source: Radford et al. 2021, figure 3, https://arxiv.org/abs/2103.00020; shared targets as in
    Khosla et al. 2020, equation 2, https://arxiv.org/abs/2004.11362.
    """
    logits, same = _compare(images, texts, captions, scale)  # [J, G, G]
    target = same / same.sum(dim=2, keepdim=True)
    to_text = -(target * logits.log_softmax(dim=2)).sum(dim=2).mean(dim=1)  # [J]
    to_image = -(target * logits.log_softmax(dim=1)).sum(dim=1).mean(dim=1)  # [J]
    return (to_text + to_image) / 2


def sigmoid_loss(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B J E"],
    captions: Int[Tensor, "B J"],
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""],
) -> Float[Tensor, "J"]:
    """SigLIP's loss at every prefix: each image and each caption, a pair or none.

    The arguments are those of `contrastive_loss`, and the bias of every score. When captions are
    unique and on one process this is open_clip's `SigLipLoss`.

    Source: Zhai et al. 2023, equation 1, https://arxiv.org/abs/2303.15343.
    """
    logits, same = _compare(images, texts, captions, scale)  # [J, G, G]
    signs = 2 * same.to(logits.dtype) - 1
    return -F.logsigmoid(signs * (logits + bias)).sum(dim=2).mean(dim=1)


def _compare(
    images: Float[Tensor, "B J E"],
    texts: Float[Tensor, "B J E"],
    captions: Int[Tensor, "B J"],
    scale: Float[Tensor, ""],
) -> tuple[Float[Tensor, "J G G"], Bool[Tensor, "J G G"]]:
    """Score every image against every caption of all processes, and say which are pairs."""
    images, texts, captions = gather(images), gather(texts), gather(captions)
    same = captions.T[:, :, None] == captions.T[:, None, :]  # [J, G, G]
    with torch.autocast(images.device.type, enabled=False):  # in bf16 a score of 30 is off by 0.1
        return scale * torch.einsum("ipe,jpe->pij", images, texts), same


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

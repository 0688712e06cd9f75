"""Captioning: what is said of an image, word piece after word piece, from a prefix of its tokens.

B batch   L word pieces   V word pieces that can be written
"""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def piece_log_likelihoods(
    logits: Float[Tensor, "B L V"], targets: Int[Tensor, "B L"]
) -> Float[Tensor, "B L"]:
    """The log-likelihood of each target in nats; 0 where there is none, see `Fusion.targets`."""
    return -F.cross_entropy(logits.float().mT, targets, reduction="none")


def captioning_loss(
    logits: Float[Tensor, "B L V"], targets: Int[Tensor, "B L"]
) -> Float[Tensor, ""]:
    """Cross-entropy, the mean over all word pieces that can be written.

    Source: Li et al. 2023, "BLIP-2", section 3.1, https://arxiv.org/abs/2301.12597.
    """
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

"""The terms of one batch: their sum, and how hard each pulls.

B batch   K tokens   D channels of a token   C what the encoder gives for one
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor
from torch.export import register_dataclass


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The terms of one batch, unweighted."""

    values: Mapping[str, Float[Tensor, ""]]
    tokens: Float[Tensor, "B K D"]
    """Those of the images, without noise: no term, but what all terms share."""
    given: Float[Tensor, "B K C"] | None = None
    """What the encoder gave, where the kl term pulls: the tokens are drawn from it."""
    apart: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Losses of what learns beside the orderer, which they do not reach."""

    def total(self, weights: Mapping[str, float]) -> Float[Tensor, ""]:
        """The weighted sum, and the losses apart."""
        weighted = [weights[name] * value for name, value in self.values.items()]
        return torch.stack([*weighted, *self.apart.values()]).sum()

    def gradient_norms(self, weights: Mapping[str, float]) -> dict[str, Float[Tensor, ""]]:
        """How hard each weighted term pulls at an image's tokens, where all terms meet.

        The kl term pulls before them, at what they are drawn from.

        The norm of the gradient of the image's share, the mean over the batch: it does not depend
        on the size of the batch. The graph is kept; it costs a backward pass through what lies
        behind the tokens.
        """
        return {
            name: _pull(weights[name] * value, self.given if name == "kl" else self.tokens)
            for name, value in self.values.items()
        }


def _pull(value: Float[Tensor, ""], tokens: Float[Tensor, "B K C"] | None) -> Float[Tensor, ""]:
    if tokens is None or not tokens.requires_grad:  # the encoder is frozen
        return value.new_zeros(())
    (gradient,) = torch.autograd.grad(value, tokens, retain_graph=True, allow_unused=True)
    if gradient is None:
        return value.new_zeros(())
    return len(tokens) * gradient.float().flatten(1).norm(dim=1).mean()


register_dataclass(Terms)  # so that FSDP finds the tensors in what `Stage1` returns

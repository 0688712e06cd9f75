"""The junction: where stage 2's gradient joins stage 1's, at the tokens.

All that stage 1 asks of an encoder comes through its tokens, and so does all that stage 2 asks. So
the two are weighed there: it costs no backward pass of its own, and none of them can drown the
other unseen.

    B batch   K tokens   D channels of a token

Uncapped, the AR loss falls while tokens lose rank; capped at a tenth of stage 1's norm it does no
harm (tests/ar/test_collapse.py).
"""

import torch
from jaxtyping import Float
from torch import Tensor


class Junction:
    """Shows stage 2 a copy of the tokens, and adds what it asks of the copy to stage 1's gradient.

    First call backward on the losses of stage 2, which see `seen`; then on those of stage 1, which
    see the tokens themselves.

    Args:
        tokens: the encoder's.
        weight: of stage 2's gradient.
        cap: most that its norm may be after that, as a share of the norm of stage 1's; None is no
            cap. On several processes each weighs its own part of the batch.

    Raises:
        ValueError: for a weight or a cap below 0.
    """

    def __init__(
        self, tokens: Float[Tensor, "B K D"], weight: float = 1.0, cap: float | None = None
    ) -> None:
        for name, value in (("weight", weight), ("cap", cap)):
            if value is not None and value < 0:
                raise ValueError(f"the {name} of a route must be at least 0, got {value}")
        self.weight, self.cap = weight, cap
        self.seen = tokens.detach().requires_grad_()
        """What stage 2 computes on."""
        self.share = tokens.new_zeros((), dtype=torch.float32)
        """Norm of what was added, as a share of stage 1's gradient."""
        self.asked = tokens.new_zeros((), dtype=torch.float32)
        """The same of what was asked for, before the cap."""
        self.cosine = tokens.new_zeros((), dtype=torch.float32)
        """Between the two: below 0 they want the opposite."""
        tokens.register_hook(self._join)

    def _join(self, own: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        if self.seen.grad is None or not self.weight:
            return own
        first, second = own.float(), self.weight * self.seen.grad.float()
        least = torch.finfo(torch.float32).tiny
        norms = first.norm().clamp(min=least), second.norm().clamp(min=least)
        self.asked = self.share = norms[1] / norms[0]
        self.cosine = (first / norms[0] * (second / norms[1])).sum()
        if self.cap is not None:
            factor = (self.cap / self.asked).clamp(max=1)
            second, self.share = factor * second, factor * self.asked
        return (first + second).to(own.dtype)

"""What tunes the decoder of a fixed order: the terms of rebuilt images, as `Stage1` takes them.

B batch   S image side
"""

from collections.abc import Collection

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from ..inputs import in_range
from ..objectives import Discriminator, Objectives, Terms
from ..prefix import draw_lengths, keep_mask
from .model import FixedOrder


class Refining(nn.Module):
    """A fixed order with a decoder, and what the adversarial term is up against.

    Raises:
        ValueError: for a perceptual term, which it has no network for.
    """

    def __init__(self, order: FixedOrder, objectives: Objectives) -> None:
        super().__init__()
        if objectives.perceptual:
            raise ValueError(
                "a fixed order is refined without a perceptual term, got one of weight "
                f"{objectives.perceptual:g}"
            )
        self.order, self.full_share = order, objectives.full_share
        self._opponent = (Discriminator(objectives.lecam),)  # learns by itself, see `Stage1`

    @property
    def discriminator(self) -> Discriminator:
        """To be moved and trained by itself."""
        return self._opponent[0]

    def forward(
        self,
        images: UInt8[Tensor, "B 3 S S"],
        said: None,
        wanted: Collection[str],
        generator: torch.Generator | None = None,
    ) -> Terms:
        """Take the terms `reconstruction` and, if it is wanted, `adversarial`, of prefixes."""
        tokens, real = self.order.encode(images), in_range(images)
        count = tokens.shape[1]
        lengths = draw_lengths(len(images), count, self.full_share, generator=generator)
        drawn = self.order.rebuild(tokens, keep_mask(lengths.to(tokens.device), count)).float()
        values, apart = {"reconstruction": (drawn - real).square().mean()}, {}
        if "adversarial" in wanted:
            values["adversarial"], apart["discriminator"] = self.discriminator(drawn, real)
        return Terms(values=values, tokens=tokens, apart=apart)

"""A fresh reader: a readout and a text tower that learn from frozen tokens what is in them.

B batch   K tokens   D channels of a token   J measured prefixes   E embedding size
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..bound import at_most
from ..config import OrdererConfig
from ..model import MOST_SCALE, START_SCALE
from ..objectives import contrastive_loss
from ..prefix import prefix_lengths
from ..processor import Said
from ..readout import Readout
from ..text import make_own_text


class FreshReader(nn.Module):
    """As large as an orderer's own readout and text tower, and causal whatever those are.

    Its text tower is one of our own sizes, also where the orderer has one of another library: that
    one would start from random weights here, and frozen ones would stay so.

    Raises:
        ValueError: for an orderer whose texts are not in open_clip's word pieces.
    """

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        if config.text == "transformers":
            raise ValueError(
                "a fresh reader reads open_clip's word pieces, this orderer's text tower is of "
                "transformers"
            )
        self.readout = Readout(config, pooled=False)
        self.text = make_own_text(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))
        self.prefixes = prefix_lengths(config.tokens)

    def forward(self, tokens: Float[Tensor, "B K D"], said: Said) -> Float[Tensor, ""]:
        """Contrast images and captions at every measured prefix."""
        images = self.readout(tokens, self.prefixes).float()  # [B, J, E]
        texts = self.text(said.texts).float()[said.at]  # [B, J, E]
        scale = at_most(self.log_scale.exp(), MOST_SCALE)
        return contrastive_loss(images, texts, said.numbers[said.at], scale).mean()

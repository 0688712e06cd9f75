"""The route `align`: what the trunk understands of tokens reaches the orderer, its loss does not.

The trunk's states over an image's tokens, read without a condition, must tell which caption is the
image's. What makes tokens legible to the AR model is what the orderer gains; the AR model's own
weights do not follow this loss, or it would forget how to generate. After the last token the trunk
is not read: nothing follows there, so that no loss of tokens ever taught it to read that place.

    B batch   K tokens   D channels of a token   E size of the text embedding

Source: Leng et al. 2025, "REPA-E", section 3, https://arxiv.org/abs/2504.10483 (there a frozen
vision model is the target; here it is the text tower).
"""

from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ..model import ARModel


class TrunkAlignment(nn.Module):
    """Projects the trunk's states at a middle layer to embeddings of every prefix but the whole."""

    def __init__(self, model: ARModel, embed_dim: int) -> None:
        super().__init__()
        self.layer = (model.config.layers + 1) // 2
        self.project = nn.Sequential(
            nn.LayerNorm(model.config.width), nn.Linear(model.config.width, embed_dim)
        )

    def forward(self, model: ARModel, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K-1 E"]:
        """Unit embeddings of tokens 1..k for every k < K, through the trunk without a condition.

        Gradients reach the tokens and the projector, not the model.
        """
        with frozen(model):
            seen = model.standardise(tokens)[:, :-1]
            states = model.trunk.states(seen, model.unconditioned(len(seen)))
        return F.normalize(self.project(states[self.layer][:, 1:]), dim=-1)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """No gradient of what is computed inside reaches the model's parameters; inputs have theirs."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)

"""The orderer's own verdict on tokens: how near a prefix is to the caption that it is for."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ar import Score
from orderer import Orderer, OrdererProcessor


def own_score(captions: Sequence[str], orderer: Orderer, processor: OrdererProcessor) -> Score:
    """Score the first k tokens by their cosine similarity with the caption of their row."""
    texts = orderer.embed_texts(processor.text(captions).to(orderer.device))  # [B, E]

    def score(tokens: Float[Tensor, "R k D"], rows: Int[Tensor, "R"]) -> Float[Tensor, "R"]:
        return (orderer.embed_tokens(tokens)[:, -1] * texts[rows]).sum(dim=1)

    return score

"""The orderer's own verdict on tokens: how near a prefix is to the caption that it is for."""

from collections.abc import Sequence

from jaxtyping import Float, Int
from torch import Tensor

from ar import Score
from orderer import Orderer, OrdererProcessor
from orderer.sequences import ImageSequence


def own_score(
    captions: Sequence[str], orderer: ImageSequence, processor: OrdererProcessor
) -> Score:
    """Score the first k tokens by their cosine similarity with the caption of their row.

    Raises:
        ValueError: by the score, for a fixed order, which aligns nothing with text.
    """
    texts: Tensor | None = None  # embedded when a score is first asked for

    def score(tokens: Float[Tensor, "R k D"], rows: Int[Tensor, "R"]) -> Float[Tensor, "R"]:
        nonlocal texts
        if not isinstance(orderer, Orderer):
            raise ValueError(
                "a search is scored by an orderer, a fixed order aligns nothing with text: "
                "search.candidates must be 1"
            )
        if texts is None:
            texts = orderer.embed_texts(processor.text(captions).to(orderer.device))  # [B, E]
        return (orderer.embed_tokens(tokens)[:, -1] * texts[rows]).sum(dim=1)

    return score

"""Classification: does an image's embedding lie nearest to the name of its class?

N images   C classes   E size of the embedding
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def class_accuracy(
    image_embeddings: Float[Tensor, "N E"],
    class_embeddings: Float[Tensor, "C E"],
    labels: Int[Tensor, "N"],
) -> float:
    """The share of the images whose best class is theirs; among equal best ones chance decides."""
    scores = image_embeddings.double() @ class_embeddings.double().T  # [N, C]
    best = scores == scores.amax(dim=1, keepdim=True)
    own = best[torch.arange(len(labels)), labels]
    return (own / best.sum(dim=1)).mean().item()

"""How well images and captions find each other once the best are ranked again by matching."""

from typing import Any

import torch
from torch import Tensor

from data import Pairs
from orderer import Orderer, OrdererProcessor, prefix_lengths
from orderer.evaluation import reranked_metrics
from recipes.experiment import Experiment
from recipes.finding import embed_captions, queried

BATCH = 1000


@torch.no_grad()
def rerank_at_prefixes(
    experiment: Experiment,
    pairs: Pairs,
    tokens: Tensor,
    orderer: Orderer,
    processor: OrdererProcessor,
) -> dict[str, Any]:
    """Both directions at every prefix, after the second stage.

    Raises:
        ValueError: for an orderer without fusion.
    """
    captions = queried(experiment, pairs)
    owner = torch.tensor([image for image, of_one in enumerate(captions) for _ in of_one])
    flat = [caption for of_one in captions for caption in of_one]
    texts = embed_captions(flat, orderer.text, processor, tokens.device)
    pieces = processor.text(flat).to(tokens.device)
    found: dict[str, Any] = {"image_to_text": {}, "text_to_image": {}, "ties": {}}
    for k in prefix_lengths(tokens.shape[1]):
        cut = tokens[:, :k]
        images = orderer.embed_tokens(cut)[:, -1].cpu()
        at_k = reranked_metrics(
            images, texts, owner, _matcher(orderer, cut, pieces), experiment.evaluation.rerank
        )
        for direction in found:
            found[direction][str(k)] = at_k[direction]
    return found


def _matcher(orderer: Orderer, tokens: Tensor, pieces: Tensor) -> Any:
    def match(image: Tensor, caption: Tensor) -> Tensor:
        some = zip(image.split(BATCH), caption.split(BATCH), strict=True)
        return torch.cat([orderer.match(tokens[i], pieces[c]).cpu() for i, c in some])

    return match

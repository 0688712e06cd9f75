"""What there is to say about an orderer's tokens: over a split, and for single images.

N images of the split   K tokens   R, C rows and columns of patches   J measured prefixes
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data import Pairs
from orderer import Orderer, OrdererProcessor, prefix_lengths
from orderer.evaluation import (
    attribution_maps,
    explained_by_before,
    explained_by_each,
    gain_maps,
    mean_psnr,
    psnr,
    retrieval_metrics,
)
from recipes.caption_quality import likelihood_of_captions, written_by_orderer
from recipes.decoding import decoded
from recipes.finding import embed_captions
from recipes.probing import factors_read, tokens_of

BATCH = 250
NEAREST = 3
"""Captions that are shown as the nearest."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """An image to explain."""

    name: str
    image: UInt8[Tensor, "3 S S"]
    captions: Sequence[str]
    """Its own, if it has any."""


@dataclass(frozen=True, kw_only=True)
class AtPrefix:
    """What an image is from its first k tokens."""

    k: int
    rebuilt: UInt8[Tensor, "3 S S"]
    psnr: float
    """dB."""
    nearest: Sequence[str]
    """Captions of the split, the nearest first."""
    written: str | None
    """The caption that the orderer writes, if it does."""


@dataclass(frozen=True, kw_only=True)
class Explained:
    """An image, prefix by prefix and token by token."""

    subject: Subject
    prefixes: Sequence[AtPrefix]
    attribution: Float[Tensor, "K R C"]


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """All that the page says."""

    images: Sequence[Explained]
    split: str
    count: int
    """Images of the split."""
    encoding_hash: str
    psnr: dict[int, float]
    recall: dict[int, float]
    """Text to image R@1, by the last caption of each image."""
    likelihood: dict[int, float] | None
    """Of the last captions, nats for each word piece, at the measured prefixes; None where the
    orderer writes none."""
    gains: Float[Tensor, "K S S"]
    by_each: Float[Tensor, "K K"]
    by_before: Float[Tensor, "K"]
    factors: dict[str, Any] | None
    """Of scenes."""


@torch.no_grad()
def explain(
    orderer: Orderer,
    processor: OrdererProcessor,
    pairs: Pairs,
    subjects: Sequence[Subject],
    *,
    draws: int,
    scenes: int | None,
    seed: int,
) -> Explanation:
    """Measure over a split and look into single images.

    Args:
        orderer: in eval mode.
        processor: of the orderer.
        pairs: of the split.
        subjects: the images to look into.
        draws: random directions of the attribution maps.
        scenes: how many to fit the linear map of the factors on; None for other data.
        seed: of those directions.
    """
    tokens = tokens_of(orderer, pairs)
    every = orderer.config.tokens
    rebuilt = {k: decoded(orderer, tokens[:, :k]) for k in range(1, every + 1)}
    captions = [of_one[-1] for of_one in pairs.captions]
    texts = embed_captions(captions, orderer.text, processor, tokens.device)
    images = torch.stack([subject.image for subject in subjects]).to(orderer.device)
    generator = torch.Generator(orderer.device).manual_seed(seed)
    maps = attribution_maps(orderer, images, draws, generator).cpu()
    return Explanation(
        images=[
            Explained(
                subject=subject,
                prefixes=at_prefixes(orderer, processor, subject, captions, texts),
                attribution=attribution,
            )
            for subject, attribution in zip(subjects, maps, strict=True)
        ],
        split=pairs.name,
        count=len(pairs),
        encoding_hash=orderer.encoding_hash(),
        psnr={k: mean_psnr(pairs.images, each) for k, each in rebuilt.items()},
        recall=recall(orderer, tokens, texts),
        likelihood=likelihood(orderer, processor, tokens, captions),
        gains=gain_maps(pairs.images, [rebuilt[k] for k in sorted(rebuilt)], least=1),
        by_each=explained_by_each(tokens.cpu()),
        by_before=explained_by_before(tokens.cpu()),
        factors=None if scenes is None else factors_read(orderer, scenes, pairs),
    )


def at_prefixes(
    orderer: Orderer,
    processor: OrdererProcessor,
    subject: Subject,
    captions: Sequence[str],
    texts: Float[Tensor, "N E"],
) -> list[AtPrefix]:
    """One image at every measured prefix."""
    tokens = orderer.encode(subject.image[None].to(orderer.device))
    embeddings = orderer.embed_tokens(tokens)[0].cpu()  # [K, E]
    found = []
    for k in prefix_lengths(orderer.config.tokens):
        rebuilt = decoded(orderer, tokens[:, :k])
        best = (texts @ embeddings[k - 1]).argsort(descending=True).tolist()
        different = list(dict.fromkeys(captions[i] for i in best))
        found.append(
            AtPrefix(
                k=k,
                rebuilt=rebuilt[0],
                psnr=psnr(subject.image[None], rebuilt).item(),
                nearest=different[:NEAREST],
                written=written(orderer, processor, tokens[:, :k]),
            )
        )
    return found


def written(
    orderer: Orderer, processor: OrdererProcessor, tokens: Float[Tensor, "1 k D"]
) -> str | None:
    """The caption that the orderer writes from some tokens, if it writes any."""
    if orderer.config.fusion_layers is None:
        return None
    return processor.words(orderer.caption_tokens(tokens))[0]


def likelihood(
    orderer: Orderer,
    processor: OrdererProcessor,
    tokens: Float[Tensor, "N K D"],
    captions: Sequence[str],
) -> dict[int, float] | None:
    """Mean log-likelihood of captions at each measured prefix, see `likelihood_of_captions`."""
    if orderer.config.fusion_layers is None:
        return None
    writer, said = written_by_orderer(orderer), [[caption] for caption in captions]
    return {
        k: likelihood_of_captions(tokens[:, :k], said, writer, processor)
        for k in prefix_lengths(tokens.shape[1])
    }


def recall(
    orderer: Orderer, tokens: Float[Tensor, "N K D"], texts: Float[Tensor, "N E"]
) -> dict[int, float]:
    """Text to image R@1 at every prefix length."""
    own = torch.arange(len(tokens))
    images = torch.cat([orderer.embed_tokens(some).cpu() for some in tokens.split(BATCH)])
    return {
        k: retrieval_metrics(images[:, k - 1].contiguous(), texts, own)["text_to_image"]["r1"]
        for k in range(1, images.shape[1] + 1)
    }

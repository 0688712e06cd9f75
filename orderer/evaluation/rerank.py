"""Two-stage retrieval: the embeddings' best are ranked again by a model that reads both.

The rest of the gallery keeps its order behind them. These figures cost a pass of the model for each
pair of the shortlists and are never compared with those of embeddings alone.

    N images   M captions   E size of the embedding   Q queries   G items of the gallery
    c queries of one chunk   n length of a shortlist

Source: Li et al. 2023, "BLIP-2", section 4.4, https://arxiv.org/abs/2301.12597.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from .retrieval import ROUNDING, check_pairs, summarise, ties

Match = Callable[[Int[Tensor, "P"], Int[Tensor, "P"]], Float[Tensor, "P"]]
"""Scores pairs, given by the indices of their images and of their captions."""


def reranked_metrics(
    image_embeddings: Float[Tensor, "N E"],
    text_embeddings: Float[Tensor, "M E"],
    image_of_text: Int[Tensor, "M"],
    match: Match,
    shortlist: int,
    ks: Sequence[int] = (1, 5, 10),
    *,
    chunk: int = 16,
) -> dict[str, dict[str, float]]:
    """Rank each query's best items again; the figures are those of `retrieval_metrics`.

    Items whose logits are equal are ordered at random. Where equal scores of the embeddings lie
    across the end of a shortlist, a seeded draw says which are on it.

    Args:
        image_embeddings: fp32 or fp64.
        text_embeddings: of all captions, any number for each image, in any order.
        image_of_text: the index of the image that each caption belongs to.
        match: scores the pairs of the shortlists.
        shortlist: items of each query that are ranked again; all of them where there are fewer.
        ks: places from 1 on that count as a hit.
        chunk: queries whose shortlists are matched at once.

    Raises:
        ValueError: for what `retrieval_metrics` refuses, a shortlist below 1, or a NaN match.
    """
    check_pairs(image_embeddings, text_embeddings, image_of_text, ks)
    if shortlist < 1:
        raise ValueError(f"a shortlist must hold at least 1 item, got {shortlist}")
    images, texts = image_embeddings.double(), text_embeddings.double()
    image = torch.arange(len(images), device=images.device)
    to_text = _standings(images, texts, image, image_of_text, match, shortlist, chunk)
    to_image = _standings(
        texts, images, image_of_text, image, lambda t, i: match(i, t), shortlist, chunk
    )
    return {
        "image_to_text": summarise(to_text, ks),
        "text_to_image": summarise(to_image, ks),
        "ties": {"image_to_text": ties(to_text), "text_to_image": ties(to_image)},
    }


def _standings(
    queries: Float64[Tensor, "Q E"],
    gallery: Float64[Tensor, "G E"],
    image_of_query: Int[Tensor, "Q"],
    image_of_item: Int[Tensor, "G"],
    match: Match,
    shortlist: int,
    chunk: int,
) -> Float64[Tensor, "Q 3"]:
    """Count, for each query, the items above its best own item, level with it, own and level."""
    rounding = ROUNDING * queries.norm(dim=1).max() * gallery.norm(dim=1).max()
    counts = []
    for rows in torch.arange(len(queries), device=queries.device).split(chunk):
        scores = queries[rows] @ gallery.T  # [c, G]
        own = image_of_query[rows, None] == image_of_item
        listed = _best(scores, min(shortlist, len(gallery)), rounding)
        logits = _match_listed(rows, listed, match)
        first = _count_above(logits, own & listed, torch.zeros_like(rounding))
        behind = _count_above(scores.masked_fill(listed, -torch.inf), own & ~listed, rounding)
        behind[:, 0] += listed.sum(dim=1)
        found = (own & listed).any(dim=1, keepdim=True)
        counts.append(torch.where(found, first, behind))
    return torch.cat(counts).double()


def _count_above(
    scores: Float64[Tensor, "c G"], own: Bool[Tensor, "c G"], rounding: Float64[Tensor, ""]
) -> Int[Tensor, "c 3"]:
    """Count the items above the best own item, level with it, own and level."""
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    level = (scores - best).abs() <= rounding
    above = scores > best + rounding
    return torch.stack([above.sum(1), level.sum(1), (level & own).sum(1)], dim=1)


def _best(
    scores: Float64[Tensor, "c G"], number: int, rounding: Float64[Tensor, ""]
) -> Bool[Tensor, "c G"]:
    """Mark the best items of each query, equal ones in an order that a seed draws."""
    order = torch.randperm(scores.shape[1], generator=torch.Generator().manual_seed(0))
    order = order.to(scores.device)
    last = scores.topk(number, dim=1).values[:, -1:]
    level = (scores - last).abs() <= rounding
    drawn = torch.where(level, last, scores)[:, order]
    best = drawn.argsort(dim=1, descending=True, stable=True)[:, :number]
    return torch.zeros_like(level).scatter(1, order[best], True)


def _match_listed(
    rows: Int[Tensor, "c"], listed: Bool[Tensor, "c G"], match: Match
) -> Float64[Tensor, "c G"]:
    """The logits of the pairs that are listed, minus infinity for the others."""
    row, item = listed.nonzero(as_tuple=True)
    logits = torch.full(listed.shape, -torch.inf, dtype=torch.float64, device=listed.device)
    matched = match(rows[row], item)
    if bool(matched.isnan().any()):
        raise ValueError(f"{int(matched.isnan().sum())} of {len(matched)} pairs match by NaN")
    logits[row, item] = matched.double().to(listed.device)
    return logits

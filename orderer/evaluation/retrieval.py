"""Retrieval: do images find their captions, and captions their image?

A query hits at k if any of its own items is among the k best of the gallery, the protocol of
CLIP_benchmark. Items whose scores are equal are ordered at random, and every figure is the expected
value over those orders: a model that maps all to one point scores exactly chance.

    N images   M captions   E size of the embedding   Q queries   G items of the gallery
    R the largest k
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

ROUNDING = 1e-12
"""Scores closer than this, as a share of the largest possible score, are equal."""


def retrieval_metrics(
    image_embeddings: Float[Tensor, "N E"],
    text_embeddings: Float[Tensor, "M E"],
    image_of_text: Int[Tensor, "M"],
    ks: Sequence[int] = (1, 5, 10),
    *,
    chunk: int = 256,
) -> dict[str, dict[str, float]]:
    """Score every pair by a dot product in fp64 and find each query's place for its own items.

    Args:
        image_embeddings: fp32 or fp64; unit length makes the scores cosines.
        text_embeddings: of all captions, any number for each image, in any order.
        image_of_text: the index of the image that each caption belongs to.
        ks: places from 1 on that count as a hit.
        chunk: queries compared at once; it changes the memory, not the result.

    Returns:
        `image_to_text` and `text_to_image`, each with `r{k}`, the share of the queries that hit
        at k, and `median_rank`, the median place (from 1) of the best own item; and `ties`, for
        each direction the queries whose best own item has the score of another's.

    Raises:
        ValueError: for half-precision or non-finite embeddings, which blur ties, a caption of no
            image, an image without caption, or a k below 1.
    """
    check_pairs(image_embeddings, text_embeddings, image_of_text, ks)
    images, texts = image_embeddings.double(), text_embeddings.double()
    image = torch.arange(len(images), device=images.device)
    to_text = standings(images, texts, image, image_of_text, chunk)
    to_image = standings(texts, images, image_of_text, image, chunk)
    return {
        "image_to_text": summarise(to_text, ks),
        "text_to_image": summarise(to_image, ks),
        "ties": {"image_to_text": ties(to_text), "text_to_image": ties(to_image)},
    }


def standings(
    queries: Float64[Tensor, "Q E"],
    gallery: Float64[Tensor, "G E"],
    image_of_query: Int[Tensor, "Q"],
    image_of_item: Int[Tensor, "G"],
    chunk: int,
) -> Float64[Tensor, "Q 3"]:
    """Count, for each query, the items above its best own item, level with it, own and level."""
    rounding = ROUNDING * queries.norm(dim=1).max() * gallery.norm(dim=1).max()
    counts = [
        count_above(some @ gallery.T, image[:, None] == image_of_item, rounding)
        for some, image in zip(queries.split(chunk), image_of_query.split(chunk), strict=True)
    ]
    return torch.cat(counts).double()


def count_above(
    scores: Float64[Tensor, "c G"], own: Bool[Tensor, "c G"], rounding: Float64[Tensor, ""]
) -> Int[Tensor, "c 3"]:
    """Count the items above the best own item, level with it, own and level."""
    best = scores.masked_fill(~own, -torch.inf).amax(dim=1, keepdim=True)
    level = (scores - best).abs() <= rounding
    above = scores > best + rounding
    return torch.stack([above.sum(1), level.sum(1), (level & own).sum(1)], dim=1)


def summarise(standings: Float64[Tensor, "Q 3"], ks: Sequence[int]) -> dict[str, float]:
    """The recalls and the median rank that standings come to."""
    hits = expected_hits(standings, max(ks)).mean(dim=0)
    recalls = {f"r{k}": hits[k - 1].item() for k in ks}
    return recalls | {"median_rank": _expected_rank(standings).quantile(0.5).item()}


def expected_hits(standings: Float64[Tensor, "Q 3"], most: int) -> Float64[Tensor, "Q R"]:
    """The probability of a hit at 1, 2, ..., R.

    The places are filled one after another: while no own item has come, the next of the `left`
    level items is another's with probability (left - own) / left.
    """
    above, level, own = standings[:, :, None].unbind(1)  # [Q, 1]
    drawn = torch.arange(most, device=standings.device) - above  # [Q, R] level items before
    left = level - drawn
    another = (left - own).clamp(min=0) / left
    missed = torch.where((drawn >= 0) & (left > 0), another, 1.0).cumprod(dim=1)
    return 1 - missed


def _expected_rank(standings: Float64[Tensor, "Q 3"]) -> Float64[Tensor, "Q"]:
    """The mean place of the first of `own` items among `level` in random order, after `above`."""
    above, level, own = standings.unbind(1)
    return above + (level + 1) / (own + 1)


def ties(standings: Float64[Tensor, "Q 3"]) -> int:
    """Count the queries whose best own item has the score of another's."""
    return int((standings[:, 1] > standings[:, 2]).sum())


def check_embeddings(**named: Tensor) -> None:
    """Refuse embeddings that blur ties, by their name."""
    for name, embeddings in named.items():
        if embeddings.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} embeddings must be fp32 or fp64, got {embeddings.dtype}")
        if not bool(embeddings.isfinite().all()):
            raise ValueError(f"{name} embeddings must be finite, got NaN or infinity")


def check_places(ks: Sequence[int]) -> None:
    """Refuse places that do not exist."""
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be places from 1 on, got {list(ks)}")


def check_pairs(images: Tensor, texts: Tensor, image_of_text: Tensor, ks: Sequence[int]) -> None:
    """Refuse what `retrieval_metrics` refuses."""
    check_embeddings(image=images, text=texts)
    check_places(ks)
    if len(image_of_text) != len(texts):
        raise ValueError(f"each of {len(texts)} captions needs an image, got {len(image_of_text)}")
    _check_images(len(images), image_of_text)


def _check_images(number: int, image_of_text: Int[Tensor, "M"]) -> None:
    if number == 0:
        raise ValueError("retrieval needs at least 1 image, got 0")
    outside = image_of_text[(image_of_text < 0) | (image_of_text >= number)]
    if len(outside):
        raise ValueError(f"a caption belongs to image {int(outside[0])}, out of 0..{number - 1}")
    captions = torch.bincount(image_of_text, minlength=number)
    if not bool(captions.all()):
        raise ValueError(f"image {int(captions.argmin())} has no caption to be found by")

"""Search: which items of a gallery have the highest scores with a query?

A score is the dot product of two embeddings, taken in fp32 to find the hits and again in fp64 to
rank them. Hits come best first; of equal scores the one that stands first in the gallery comes
first, and where the last place is shared by more than SPARE items, any of them may have it.

    Q queries   G items of the gallery   E size of the embedding   C candidates   M hits
    c channels that are searched coarsely
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

SPARE = 8
"""Items found beyond those that are asked for: fp32 rounds scores that are all but equal."""
BLOCK, AT_ONCE = 1 << 16, 256
"""Items and queries that are compared at once: 64 MB of scores."""
MOST_VALUES = 1 << 23
"""Values that are gathered at once to be scored again: 64 MB in fp64."""
FAISS_FROM = 200_000
"""Items from which on faiss searches, where it is installed; its results are the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Hits:
    """What was found for each query, best first."""

    places: Int[Tensor, "Q M"]
    """In the gallery."""
    scores: Float64[Tensor, "Q M"]


@runtime_checkable
class Search(Protocol):
    """A gallery that can be searched again and again."""

    def __call__(self, queries: Float[Tensor, "Q E"], count: int) -> Hits:
        """Find the `count` best items for each query, or all if there are fewer.

        Raises:
            ValueError: for a count below 1, or queries of another size or without a value.
        """


class ExactSearch:
    """Compares every query with every item."""

    def __init__(self, gallery: Float[Tensor, "G E"]) -> None:
        self.gallery = _checked_gallery(gallery)

    def __call__(self, queries: Float[Tensor, "Q E"], count: int) -> Hits:
        _check(queries, self.gallery, count)
        wanted = min(count + SPARE, len(self.gallery))
        parts = [self._candidates(some.float(), wanted) for some in queries.split(AT_ONCE)]
        return ranked(queries, self.gallery, torch.cat(parts), count)

    def _candidates(self, queries: Float[Tensor, "q E"], wanted: int) -> Int[Tensor, "q C"]:
        scores = queries.new_empty(len(queries), 0)
        places = torch.empty_like(scores, dtype=torch.long)
        for start, block in _blocks(self.gallery):
            found = (queries @ block.T).topk(min(wanted, len(block)), dim=1)
            scores = torch.cat([scores, found.values], dim=1)
            places = torch.cat([places, found.indices + start], dim=1)
            best = scores.topk(min(wanted, scores.shape[1]), dim=1)
            scores, places = best.values, places.gather(1, best.indices)
        return places


class FaissSearch:
    """The same by faiss, an exact flat index of inner products; the gallery is copied into it."""

    def __init__(self, gallery: Float[Tensor, "G E"]) -> None:
        import faiss  # an extra

        self.gallery = _checked_gallery(gallery)
        self._index = faiss.IndexFlatIP(gallery.shape[1])
        for _, block in _blocks(gallery):
            self._index.add(block.contiguous().numpy())

    def __call__(self, queries: Float[Tensor, "Q E"], count: int) -> Hits:
        _check(queries, self.gallery, count)
        wanted = min(count + SPARE, len(self.gallery))
        _, places = self._index.search(queries.float().contiguous().numpy(), wanted)
        return ranked(queries, self.gallery, torch.from_numpy(places), count)


def make_search(gallery: Float[Tensor, "G E"]) -> Search:
    """Choose how a gallery is searched; what is found is the same."""
    if len(gallery) >= FAISS_FROM and find_spec("faiss"):
        return FaissSearch(gallery)
    return ExactSearch(gallery)


class CoarseToFine:
    """Finds candidates by a cheap embedding of every item, and ranks them by a better one.

    Embeddings of a short prefix, cut to their first `channels` principal components, find; those of
    a long prefix rank. The prefix alone saves nothing here, embeddings of all prefixes having one
    size: it saves their making. What the search saves it saves by `channels`.

    Source: Kusupati et al. 2022, Matryoshka Representation Learning, section 4.3.1 (adaptive
    retrieval), https://arxiv.org/abs/2205.13147. There the first channels of one embedding find.
    """

    def __init__(
        self,
        coarse: Float[Tensor, "G E"],
        fine: Float[Tensor, "..."],
        *,
        candidates: int,
        channels: int | None = None,
    ) -> None:
        if candidates < 1:
            raise ValueError(f"candidates must be at least 1, got {candidates}")
        if coarse.shape != fine.shape:
            raise ValueError(
                "items need a coarse and a fine embedding each, of one size, got "
                f"{list(coarse.shape)} and {list(fine.shape)}"
            )
        self.fine, self.candidates = _checked_gallery(fine), candidates
        _checked_gallery(coarse)
        self.basis = None if channels is None else principal_components(coarse, channels)
        self.search = make_search(_projected(coarse, self.basis))

    def __call__(
        self, coarse: Float[Tensor, "Q E"], fine: Float[Tensor, "..."], count: int
    ) -> Hits:
        """Find items by the coarse embeddings of queries, and rank them by the fine ones.

        Raises:
            ValueError: for more hits than candidates, or what no `Search` takes of either kind of
                queries, or another number of them.
        """
        _check(coarse, self.fine, count)
        _check(fine, self.fine, count)
        if len(coarse) != len(fine):
            raise ValueError(
                "queries need a coarse and a fine embedding each, got "
                f"{len(coarse)} and {len(fine)}"
            )
        if count > self.candidates:
            raise ValueError(f"{count} hits need as many candidates, got {self.candidates}")
        found = self.search(_projected(coarse, self.basis), self.candidates)
        return ranked(fine, self.fine, self._best(fine, found.places, count + SPARE), count)

    def _best(
        self, queries: Float[Tensor, "Q E"], candidates: Int[Tensor, "Q C"], wanted: int
    ) -> Int[Tensor, "Q c"]:
        """The candidates that are best in fp32, which is half the work of fp64."""
        rows = max(1, MOST_VALUES // (candidates.shape[1] * self.fine.shape[1]))
        parts = []
        for some, few in zip(candidates.split(rows), queries.split(rows), strict=True):
            scores = (self.fine[some].float() @ few[:, :, None].float())[:, :, 0]  # [q, C]
            places = scores.topk(min(wanted, scores.shape[1]), dim=1).indices
            parts.append(some.gather(1, places))
        return torch.cat(parts)


def ranked(
    queries: Float[Tensor, "Q E"],
    gallery: Float[Tensor, "G E"],
    candidates: Int[Tensor, "Q C"],
    count: int,
) -> Hits:
    """Order each query's candidates by their scores in fp64, and keep the best."""
    candidates = candidates.sort(dim=1).values  # so that a stable sort leaves equals in order
    rows = max(1, MOST_VALUES // max(1, candidates.shape[1] * gallery.shape[1]))
    parts = [
        (gallery[some].double() * few[:, None].double()).sum(dim=-1)
        for some, few in zip(candidates.split(rows), queries.split(rows), strict=True)
    ]
    scores, order = torch.cat(parts).sort(dim=1, descending=True, stable=True)
    return Hits(places=candidates.gather(1, order[:, :count]), scores=scores[:, :count])


def principal_components(embeddings: Float[Tensor, "G E"], number: int) -> Float[Tensor, "E c"]:
    """Directions that hold most of the embeddings' length; the mean is not taken off.

    Raises:
        ValueError: for a number outside 1..E.
    """
    size = embeddings.shape[1]
    if not 1 <= number <= size:
        raise ValueError(f"channels must lie in 1..{size}, got {number}")
    moments = torch.zeros(size, size, dtype=torch.float64)
    for _, block in _blocks(embeddings):
        moments += block.double().T @ block.double()
    return torch.linalg.eigh(moments).eigenvectors[:, -number:].float()


def agreement(found: Int[Tensor, "Q M"], exact: Int[Tensor, "Q M"]) -> float:
    """The share of the exact hits that are among the found ones, the mean over queries."""
    return (exact[:, :, None] == found[:, None, :]).any(dim=2).double().mean().item()


def _projected(
    embeddings: Float[Tensor, "G E"], basis: Float[Tensor, "E c"] | None
) -> Float[Tensor, "G c"]:
    if basis is None:
        return embeddings
    return torch.cat([block @ basis for _, block in _blocks(embeddings)])


def _blocks(gallery: Float[Tensor, "G E"]) -> Iterator[tuple[int, Float[Tensor, "b E"]]]:
    """Parts of a gallery in fp32, each with its start."""
    for start in range(0, len(gallery), BLOCK):
        yield start, gallery[start : start + BLOCK].float()


def _checked_gallery(gallery: Float[Tensor, "G E"]) -> Float[Tensor, "G E"]:
    if len(gallery) == 0:
        raise ValueError("a gallery needs at least 1 item, got 0")
    for start, block in _blocks(gallery):
        damaged = (~block.isfinite().all(dim=1)).nonzero()
        if len(damaged):
            place = start + int(damaged[0])
            raise ValueError(f"embeddings must be finite, item {place} of the gallery is not")
    return gallery


def _check(queries: Tensor, gallery: Tensor, count: int) -> None:
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if queries.ndim != 2 or queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries must be embeddings of size {gallery.shape[1]}, got {list(queries.shape)}"
        )
    if not bool(queries.isfinite().all()):
        raise ValueError("queries must be finite, got NaN or infinity")

"""Search: exact, in a stated order, and coarse to fine."""

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from orderer import search
from orderer.search import (
    CoarseToFine,
    ExactSearch,
    FaissSearch,
    agreement,
    make_search,
    principal_components,
    ranked,
)


@pytest.fixture
def gallery() -> Tensor:
    return normalize(torch.randn(300, 16), dim=1)


@pytest.fixture
def queries() -> Tensor:
    return normalize(torch.randn(7, 16), dim=1)


class FlatIndex:
    """Stands in for faiss.IndexFlatIP, by numpy."""

    def __init__(self, size: int) -> None:
        self.items = np.empty((0, size), np.float32)

    def add(self, items: Any) -> None:
        self.items = np.concatenate([self.items, items])

    def search(self, queries: Any, count: int) -> tuple[Any, Any]:
        scores = queries @ self.items.T
        places = np.argsort(-scores, axis=1)[:, :count]
        return np.take_along_axis(scores, places, 1), places


@pytest.fixture
def faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SimpleNamespace(IndexFlatIP=FlatIndex, __spec__=SimpleNamespace(name="faiss"))
    monkeypatch.setitem(sys.modules, "faiss", module)  # type: ignore[arg-type]


@pytest.mark.parametrize("block", [1 << 16, 50, 7])
def test_it_finds_what_a_full_sort_finds(
    gallery: Tensor, queries: Tensor, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "BLOCK", block)
    monkeypatch.setattr(search, "AT_ONCE", 3)
    hits = ExactSearch(gallery)(queries, 10)
    scores, places = (queries.double() @ gallery.double().T).sort(dim=1, descending=True)
    assert torch.equal(hits.places, places[:, :10])
    torch.testing.assert_close(hits.scores, scores[:, :10])


def test_it_finds_the_same_however_little_is_gathered_at_once(
    gallery: Tensor, queries: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = ExactSearch(gallery)(queries, 5)
    monkeypatch.setattr(search, "MOST_VALUES", 1)
    assert torch.equal(ExactSearch(gallery)(queries, 5).places, before.places)


def test_copies_stand_in_the_gallerys_order(gallery: Tensor) -> None:
    copies = torch.cat([gallery[:3], gallery[1:2], gallery[3:], gallery[1:2]])
    hits = ExactSearch(copies)(gallery[1:2], 3)
    assert hits.places.tolist() == [[1, 3, 301]]
    assert hits.scores.unique().numel() == 1


def test_a_gallery_that_is_one_point_gives_its_first_items_in_order() -> None:
    hits = ExactSearch(torch.ones(6, 4))(torch.ones(1, 4), 3)
    assert hits.places.tolist() == [[0, 1, 2]]


def test_a_small_gallery_gives_all_it_has(gallery: Tensor, queries: Tensor) -> None:
    assert ExactSearch(gallery[:4])(queries, 10).places.shape == (7, 4)


def test_embeddings_in_half_precision_are_compared_as_they_are(
    gallery: Tensor, queries: Tensor
) -> None:
    hits = ExactSearch(gallery.half())(queries, 5)
    scores = queries.double() @ gallery.half().double().T
    assert torch.equal(hits.places, scores.topk(5, dim=1).indices)


@pytest.mark.usefixtures("faiss")
def test_faiss_finds_the_same(gallery: Tensor, queries: Tensor) -> None:
    with_copies = torch.cat([gallery, gallery[:20]])
    mine, its = ExactSearch(with_copies)(queries, 9), FaissSearch(with_copies)(queries, 9)
    assert torch.equal(mine.places, its.places) and torch.equal(mine.scores, its.scores)


@pytest.mark.usefixtures("faiss")
def test_faiss_searches_large_galleries_alone(
    gallery: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert type(make_search(gallery)) is ExactSearch
    monkeypatch.setattr(search, "FAISS_FROM", 300)
    assert type(make_search(gallery)) is FaissSearch
    assert type(make_search(gallery[:299])) is ExactSearch


def test_without_faiss_torch_searches_large_galleries_too(
    gallery: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "FAISS_FROM", 1)
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    assert type(make_search(gallery)) is ExactSearch


def test_with_all_items_as_candidates_coarse_to_fine_is_exact(
    gallery: Tensor, queries: Tensor
) -> None:
    coarse = torch.randn_like(gallery)
    found = CoarseToFine(coarse, gallery, candidates=300)(torch.randn_like(queries), queries, 10)
    assert torch.equal(found.places, ExactSearch(gallery)(queries, 10).places)


def test_as_many_candidates_as_hits_are_the_coarse_hits_ranked_anew(
    gallery: Tensor, queries: Tensor
) -> None:
    coarse, asked = torch.randn_like(gallery), torch.randn_like(queries)
    found = CoarseToFine(coarse, gallery, candidates=10)(asked, queries, 10)
    wanted = ExactSearch(coarse)(asked, 10).places
    assert torch.equal(found.places.sort(dim=1).values, wanted.sort(dim=1).values)
    assert torch.equal(found.places, ranked(queries, gallery, wanted, 10).places)


def test_all_channels_find_what_the_embedding_finds(gallery: Tensor, queries: Tensor) -> None:
    plain = CoarseToFine(gallery, gallery, candidates=20)(queries, queries, 5)
    turned = CoarseToFine(gallery, gallery, candidates=20, channels=16)(queries, queries, 5)
    assert torch.equal(plain.places, turned.places)


def test_principal_components_hold_all_of_what_has_few_dimensions(queries: Tensor) -> None:
    flat = torch.randn(50, 3) @ torch.randn(3, 16)
    basis = principal_components(flat, 3)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3))
    torch.testing.assert_close(flat @ basis @ basis.T, flat, atol=1e-4, rtol=0)


def test_agreement_counts_shared_hits() -> None:
    found, exact = torch.tensor([[1, 2], [5, 6]]), torch.tensor([[2, 3], [6, 5]])
    assert agreement(found, exact) == 0.75


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (lambda g, q: ExactSearch(g[:0]), "a gallery needs at least 1 item, got 0"),
        (lambda g, q: ExactSearch(g)(q, 0), "count must be at least 1, got 0"),
        (lambda g, q: ExactSearch(g)(q[:, :3], 1), r"embeddings of size 16, got \[7, 3\]"),
        (lambda g, q: ExactSearch(g)(q / 0, 1), "queries must be finite, got NaN or infinity"),
        (lambda g, q: CoarseToFine(g, g, candidates=0), "candidates must be at least 1, got 0"),
        (lambda g, q: CoarseToFine(g, g, candidates=2)(q, q, 3), "3 hits need .*, got 2"),
        (lambda g, q: CoarseToFine(g, g, candidates=2)(q, q, 0), "at least 1, got 0"),
        (lambda g, q: CoarseToFine(g, g, candidates=2)(q, q, -3), "at least 1, got -3"),
        (lambda g, q: CoarseToFine(g, g, candidates=2)(q, q / 0, 1), "queries must be finite"),
        (lambda g, q: CoarseToFine(g, g, candidates=2)(q, q[:2], 1), "each, got 7 and 2"),
        (
            lambda g, q: CoarseToFine(g, g, candidates=2, channels=3)(q[:, :5], q, 1),
            r"size 16, got \[7, 5\]",
        ),
        (lambda g, q: CoarseToFine(g / 0, g, candidates=2, channels=3), "item 0 .* is not"),
        (lambda g, q: CoarseToFine(g, g[:9], candidates=2), r"got \[300, 16\] and \[9, 16\]"),
        (lambda g, q: CoarseToFine(g, g, candidates=2, channels=17), r"in 1\.\.16, got 17"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    gallery: Tensor, queries: Tensor, ask: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        ask(gallery, queries)


def test_a_gallery_that_is_not_finite_is_refused(gallery: Tensor) -> None:
    gallery[17, 3] = torch.nan
    with pytest.raises(ValueError, match="must be finite, item 17 of the gallery is not"):
        ExactSearch(gallery)

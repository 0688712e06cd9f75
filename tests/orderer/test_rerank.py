"""Re-ranking: known answers from known matchers."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from orderer.evaluation import reranked_metrics, retrieval_metrics


def gallery(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """12 images, two captions each, in a mixed order."""
    owner = torch.randperm(24) % 12
    images = F.normalize(torch.randn(12, 3, dtype=dtype), dim=1)
    texts = F.normalize(images[owner] + torch.randn(24, 3, dtype=dtype), dim=1)
    return images, texts, owner


DIRECTIONS = ("image_to_text", "text_to_image")


@pytest.mark.parametrize("shortlist", [1, 4, 100])
def test_a_matcher_that_says_the_same_changes_nothing(shortlist: int) -> None:
    images, texts, owner = gallery()

    def match(i: Tensor, t: Tensor) -> Tensor:
        return (images[i] * texts[t]).sum(dim=1)

    assert reranked_metrics(images, texts, owner, match, shortlist) == retrieval_metrics(
        images, texts, owner
    )


@pytest.mark.parametrize("shortlist", [1, 3, 7])
def test_a_matcher_that_knows_all_hits_at_once_what_is_listed(shortlist: int) -> None:
    images, texts, owner = gallery()
    found = reranked_metrics(
        images, texts, owner, lambda i, t: (owner[t] == i).float(), shortlist, ks=(1, shortlist)
    )
    before = retrieval_metrics(images, texts, owner, ks=(shortlist,))
    for direction in DIRECTIONS:
        assert found[direction]["r1"] == before[direction][f"r{shortlist}"]
        assert found[direction][f"r{shortlist}"] == before[direction][f"r{shortlist}"]


def test_what_is_not_listed_keeps_its_place_behind() -> None:
    images, texts, owner = gallery()
    worst = reranked_metrics(images, texts, owner, lambda i, t: -(owner[t] == i).float(), 3)
    before = retrieval_metrics(images, texts, owner)
    for direction in DIRECTIONS:
        for k in ("r5", "r10"):  # a list of 3 in any order has the same 5 and 10 best
            assert worst[direction][k] == before[direction][k]
        assert worst[direction]["r1"] < before[direction]["r1"]


def test_a_matcher_that_knows_nothing_scores_chance_in_its_list() -> None:
    images, texts, owner = torch.eye(4), torch.eye(4), torch.arange(4)
    found = reranked_metrics(images, texts, owner, lambda i, t: torch.zeros(len(i)), 4, ks=(1, 4))
    for direction in DIRECTIONS:
        assert found[direction] == {"r1": 0.25, "r4": 1.0, "median_rank": 2.5}
    assert found["ties"] == dict.fromkeys(DIRECTIONS, 4)


def test_equal_scores_across_the_end_of_a_list_are_no_gift() -> None:
    one, owner = torch.ones(400, 1), torch.arange(400)
    found = reranked_metrics(one, one, owner, lambda i, t: (owner[t] == i).float(), 40)
    for direction in DIRECTIONS:
        assert found[direction]["r1"] == pytest.approx(0.1)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item, got 0"):
        reranked_metrics(*gallery(), lambda i, t: torch.zeros(len(i)), 0)


def test_matches_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="48 of 48 pairs match by NaN"):
        reranked_metrics(*gallery(), lambda i, t: torch.full((len(i),), torch.nan), 4, chunk=12)

"""Search: more candidates are never worse, and what is found follows from seed and condition."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from ar import ARModel, Condition, Found, Sampling, Search, search_tokens
from ar.search import seed_of

SEEDS = (7, 8, 9)
SAMPLING = Sampling(steps=2)
ROUNDING = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture
def condition(tiny_ar: ARModel) -> Condition:
    return tiny_ar.conditioned_on_text(torch.randn(3, 5, 16), torch.ones(3, 5, dtype=torch.bool))


@pytest.fixture
def target() -> Tensor:
    """What each row is to come near to."""
    return torch.randn(3, 4, 6)


def near(target: Tensor) -> Any:
    """Less than zero by the mean squared distance of a prefix from that of its row's target."""
    return lambda tokens, rows: -(tokens - target[rows, : tokens.shape[1]]).square().mean((1, 2))


def found(
    model: ARModel, condition: Condition, target: Tensor, seeds: Any = SEEDS, **settings: Any
) -> Found:
    how = Search(**settings)
    return search_tokens(model, condition, near(target), how, sampling=SAMPLING, seeds=list(seeds))


def same(one: Found, other: Found) -> None:
    torch.testing.assert_close(one.tokens, other.tokens, **ROUNDING)
    torch.testing.assert_close(one.scores, other.scores, **ROUNDING)


METHODS = pytest.mark.parametrize(
    "settings",
    [
        {"candidates": 5},
        {"candidates": 5, "method": "beam", "width": 2},
        {"candidates": 4, "method": "beam", "width": 2, "branches": 3, "at": (1, 3)},
        {"candidates": 5, "method": "early_exit", "enough": -1.5},
    ],
    ids=["best_of", "narrowing", "branching", "early_exit"],
)


@METHODS
def test_one_candidate_is_what_would_be_drawn_without_a_search(
    tiny_ar: ARModel, condition: Condition, target: Tensor, settings: Any
) -> None:
    alone = {**settings, "candidates": 1}
    if settings.get("method") == "beam":
        alone |= {"width": 1, "branches": 1}
    plain = tiny_ar.generate(condition, sampling=SAMPLING, seeds=SEEDS)
    one = found(tiny_ar, condition, target, **alone)
    torch.testing.assert_close(one.tokens, plain, **ROUNDING)
    assert one.drawn.tolist() == [4, 4, 4]


@METHODS
def test_what_is_found_has_the_score_that_is_told_and_no_worse_than_without_a_search(
    tiny_ar: ARModel, condition: Condition, target: Tensor, settings: Any
) -> None:
    plain = found(tiny_ar, condition, target)
    best = found(tiny_ar, condition, target, **settings)
    assert torch.equal(best.scores, near(target)(best.tokens, torch.arange(3)))
    if settings.get("method") != "beam":  # it may drop what would have ended best
        assert (best.scores >= plain.scores).all()
    assert best.scores.mean() > plain.scores.mean()


@METHODS
def test_a_row_does_not_change_with_the_batch(
    tiny_ar: ARModel, condition: Condition, target: Tensor, settings: Any
) -> None:
    together = found(tiny_ar, condition, target, **settings)
    for i, seed in enumerate(SEEDS):
        one = condition.rows(torch.tensor([i]))
        alone = found(tiny_ar, one, target[i : i + 1], [seed], **settings)
        torch.testing.assert_close(alone.tokens[0], together.tokens[i], **ROUNDING)
        assert alone.drawn[0] == together.drawn[i]


@METHODS
def test_what_is_found_does_not_depend_on_how_many_are_drawn_together(
    tiny_ar: ARModel,
    condition: Condition,
    target: Tensor,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = found(tiny_ar, condition, target, **settings)
    monkeypatch.setattr("ar.search.TOGETHER", 2)
    same(found(tiny_ar, condition, target, **settings), whole)


def test_the_best_of_n_is_the_best_of_n_that_are_drawn_alone(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    drawn = [
        tiny_ar.generate(
            condition, sampling=SAMPLING, seeds=[seed_of(seed, 0, number) for seed in SEEDS]
        )
        for number in range(6)
    ]
    scores = torch.stack([near(target)(tokens, torch.arange(3)) for tokens in drawn])  # [6, 3]
    for n in range(1, 7):
        best = found(tiny_ar, condition, target, candidates=n)
        torch.testing.assert_close(best.scores, scores[:n].amax(dim=0), **ROUNDING)
    assert len(set(scores.argmax(dim=0).tolist())) > 1  # not always the same candidate


def test_the_score_of_the_best_never_falls_with_more_candidates(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    scores = [found(tiny_ar, condition, target, candidates=n).scores for n in (1, 2, 4, 8, 16)]
    for fewer, more in pairwise(scores):
        assert (more >= fewer - 1e-5).all()
    assert (scores[-1] > scores[0]).all()


@pytest.mark.parametrize("at", [(), (1,), (1, 2, 3)])
def test_a_beam_that_drops_none_is_best_of_n(
    tiny_ar: ARModel, condition: Condition, target: Tensor, at: Any
) -> None:
    beam = found(tiny_ar, condition, target, candidates=5, method="beam", width=5, at=at)
    best = found(tiny_ar, condition, target, candidates=5)
    torch.testing.assert_close(beam.tokens, best.tokens, atol=1e-4, rtol=1e-4)
    assert beam.drawn.tolist() == best.drawn.tolist() == [20] * 3


def test_a_beam_judged_at_its_end_alone_is_best_of_n(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    beam = found(tiny_ar, condition, target, candidates=5, method="beam", at=(4,))
    same(beam, found(tiny_ar, condition, target, candidates=5))


def test_a_beam_goes_on_with_the_prefix_that_scores_best(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    beam = found(tiny_ar, condition, target, candidates=6, method="beam", at=(2,))
    short = search_tokens(
        tiny_ar,
        condition,
        near(target),
        Search(candidates=6),
        sampling=SAMPLING,
        seeds=SEEDS,
        prefix=2,
    )
    torch.testing.assert_close(beam.tokens[:, :2], short.tokens, **ROUNDING)
    assert beam.drawn.tolist() == [6 * 2 + 2] * 3


def test_branches_of_one_prefix_go_different_ways(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    asked = []

    def score(tokens: Tensor, rows: Tensor) -> Tensor:
        asked.append(tokens)
        return near(target)(tokens, rows)

    how = Search(method="beam", candidates=4, width=2, branches=2, at=(2,))
    search_tokens(tiny_ar, condition, score, how, sampling=SAMPLING, seeds=SEEDS)
    first, last = (tokens.view(3, 4, -1, 6) for tokens in asked)
    assert first.shape[2] == 2 and last.shape[2] == 4
    torch.testing.assert_close(last[:, 0, :2], last[:, 1, :2])  # two of one
    assert not torch.allclose(last[:, 1, :2], last[:, 2, :2])
    assert len({tuple(row.tolist()) for row in last[:, :, 3].reshape(12, 6)}) == 12


def test_more_tokens_are_drawn_for_more_branches(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    def cost(**settings: Any) -> list[int]:
        return found(tiny_ar, condition, target, method="beam", **settings).drawn.tolist()

    assert cost(candidates=8) == [8 + 1 + 2] * 3  # tokens 1, 2, and 3 and 4
    assert cost(candidates=8, width=2, branches=4) == [8 + 8 + 16] * 3
    assert cost(candidates=8, width=3, branches=2, at=(3,)) == [24 + 6] * 3


def test_an_early_exit_draws_until_it_is_enough(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    def exits(enough: float) -> Found:
        return found(tiny_ar, condition, target, candidates=6, method="early_exit", enough=enough)

    scores = torch.stack(
        [found(tiny_ar, condition, target, candidates=n).scores for n in range(1, 7)]
    )
    assert exits(-float("inf")).drawn.tolist() == [4, 4, 4]
    never = exits(float("inf"))
    assert never.drawn.tolist() == [24, 24, 24]
    torch.testing.assert_close(never.scores, scores[-1], **ROUNDING)
    enough = float(scores[2:4].mean())
    needed = [next((n for n in range(6) if of[n] >= enough), 5) + 1 for of in scores.T.tolist()]
    assert exits(enough).drawn.tolist() == [4 * n for n in needed]
    assert len(set(needed)) > 1


def test_a_shorter_prefix_is_searched_too(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    short = search_tokens(
        tiny_ar, condition, near(target), Search(candidates=3, method="beam"), prefix=3
    )
    assert short.tokens.shape == (3, 3, 6)
    assert short.drawn.tolist() == [3 + 1 + 1] * 3
    assert Search(method="beam").stops(16) == (1, 2, 4, 8, 16)
    assert Search(method="beam").stops(6) == (1, 2, 4, 6)
    assert Search(method="beam", at=(2, 6)).stops(6) == (2, 6)
    assert Search().stops(6) == (6,)


def test_candidates_have_seeds_of_their_own() -> None:
    seeds = [
        seed_of(seed, stage, candidate)
        for seed in range(20)
        for stage in range(5)
        for candidate in range(16)
    ]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)  # as much as torch makes use of
    assert seed_of(3, 0, 0) == 3


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"method": "beam", "width": 0}, "width must be at least 1, got 0"),
        ({"method": "beam", "branches": 0}, "branches must be at least 1, got 0"),
        ({"method": "beam", "candidates": 2, "width": 3}, "at most the 2 candidates, got 3"),
        ({"method": "beam", "at": (2, 1)}, r"at must hold rising prefixes from 1 on, got \[2, 1\]"),
        ({"method": "beam", "at": (0, 1)}, r"at must hold rising prefixes from 1 on, got \[0, 1\]"),
        ({"candidates": 4, "width": 2}, "width, branches and at are for beam, got .* for best_of"),
        ({"enough": 0.3}, "enough is for early_exit, got 0.3 for best_of"),
        ({"method": "early_exit"}, "early_exit needs to know which score is enough, got None"),
        ({"method": "early_exit", "enough": float("nan")}, "which score is enough, got nan"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Search(**settings)


def test_what_cannot_be_searched_is_refused(
    tiny_ar: ARModel, condition: Condition, target: Tensor
) -> None:
    score = near(target)
    beam = Search(method="beam", at=(2, 5))
    with pytest.raises(ValueError, match=r"at must hold prefixes in 1\.\.4, got 5"):
        search_tokens(tiny_ar, condition, score, beam)
    with pytest.raises(ValueError, match=r"prefix must lie in 1\.\.4, got 5"):
        search_tokens(tiny_ar, condition, score, Search(), prefix=5)
    with pytest.raises(ValueError, match="each of the 3 rows needs a seed, got 2"):
        search_tokens(tiny_ar, condition, score, Search(), seeds=[1, 2])
    with pytest.raises(ValueError, match=r"each of 3 candidates needs a score, got \[1\]"):
        search_tokens(tiny_ar, condition, lambda tokens, rows: torch.zeros(1), Search())
    with pytest.raises(ValueError, match="scores must be numbers, got NaN"):
        search_tokens(tiny_ar, condition, lambda tokens, rows: rows * float("nan"), Search())

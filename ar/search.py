"""Search: many candidates for each condition, of which a score of their prefixes keeps the best.

    B rows of the condition   R candidates of all rows   k tokens of a prefix   K tokens at the end
    D channels of a token

The orderer's similarity of a prefix with the caption is such a score: no outside verifier is
needed. All three methods draw the first candidate of a row from the row's own seed and each other
one from a seed that follows from it, so what is found for a row does not depend on the batch, and
fewer candidates are the first of more.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import isnan
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from orderer.inputs import check_prefix

from .model import ARModel
from .settings import Sampling
from .trunk import Condition

TOGETHER = 512
"""Candidates that are drawn together, for memory."""

Score = Callable[[Float[Tensor, "R k D"], Int[Tensor, "R"]], Float[Tensor, "R"]]
"""How well the first k tokens fit the condition of the row that they are for; more is better."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """How many candidates are drawn for each row, and which of them are gone on with.

    Raises:
        ValueError: for a value out of its range, naming it.
    """

    method: Literal["best_of", "beam", "early_exit"] = "best_of"
    """`best_of` draws all candidates to their end. `beam` goes on with the best of them at every
    prefix of `at`. `early_exit` draws one after another, until one scores `enough`."""
    candidates: int = 1
    """1 is off: what is found is what would be drawn without a search."""
    width: int = 1
    """Of a beam: the best that are gone on with."""
    branches: int = 1
    """Of a beam: continuations of each of them. With 1 the beam narrows, and what it has dropped
    costs no more tokens; with candidates / width it stays as wide as it began."""
    at: tuple[int, ...] | None = None
    """Of a beam: the prefixes at which it is judged, beside the last; null: 1, 2, 4, ..."""
    enough: float | None = None
    """Of an early exit: the score at which a row is done."""

    def __post_init__(self) -> None:
        for name in ("candidates", "width", "branches"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.width > self.candidates:
            most = self.candidates
            raise ValueError(f"width must be at most the {most} candidates, got {self.width}")
        if self.at is not None and list(self.at) != sorted({k for k in self.at if k > 0}):
            raise ValueError(f"at must hold rising prefixes from 1 on, got {list(self.at)}")
        of_beam = {"width": self.width, "branches": self.branches, "at": self.at}
        if self.method != "beam" and of_beam != {"width": 1, "branches": 1, "at": None}:
            raise ValueError(
                f"width, branches and at are for beam, got {of_beam} for {self.method}"
            )
        if self.method != "early_exit" and self.enough is not None:
            raise ValueError(f"enough is for early_exit, got {self.enough} for {self.method}")
        if self.method == "early_exit" and (self.enough is None or isnan(self.enough)):
            raise ValueError(f"early_exit needs to know which score is enough, got {self.enough}")

    def stops(self, prefix: int) -> tuple[int, ...]:
        """The prefixes at which candidates are judged, the whole last.

        Raises:
            ValueError: for one of `at` that is longer.
        """
        if self.method != "beam":
            return (prefix,)
        at = [2**i for i in range(prefix.bit_length())] if self.at is None else self.at
        if self.at and self.at[-1] > prefix:
            raise ValueError(f"at must hold prefixes in 1..{prefix}, got {self.at[-1]}")
        return (*[k for k in at if k < prefix], prefix)


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """The best candidate of each row."""

    tokens: Float[Tensor, "B K D"]
    scores: Float[Tensor, "B"]
    drawn: Int[Tensor, "B"]
    """Tokens that were drawn for the row, of all its candidates: what the search has cost. That a
    beam reads a prefix again to go on from it is not counted: that is one pass of the trunk."""


@torch.no_grad()
def search_tokens(
    model: ARModel,
    condition: Condition,
    score: Score,
    how: Search,
    *,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | None = None,
    prefix: int | None = None,
) -> Found:
    """Draw candidates of the first `prefix` tokens for each row of the condition, keep the best.

    Args:
        model: draws.
        condition: from one of the model's `conditioned_on_...` or `unconditioned`.
        score: says which candidates are better; it is asked for prefixes of one length at a time.
        how: the method and its settings.
        sampling: of the tokens; `Sampling()` by default.
        seeds: one for each row; by default drawn from torch's global generator.
        prefix: k in 1..K, all by default.

    Raises:
        ValueError: for what `ARModel.generate` refuses, a judged prefix that is longer than what is
            drawn, or scores that are no numbers or not one for each candidate.
    """
    prefix = model.config.tokens if prefix is None else prefix
    check_prefix(prefix, model.config.tokens)
    rows = len(condition.keep)
    seeds = torch.randint(2**62, (rows,)).tolist() if seeds is None else seeds
    if len(seeds) != rows:
        raise ValueError(f"each of the {rows} rows needs a seed, got {len(seeds)}")
    drawing = _Drawing(model, condition, score, sampling or Sampling(), seeds)
    if how.method == "early_exit":
        return _early_exit(drawing, how, prefix)
    return _beam(drawing, how, how.stops(prefix))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidates:
    """Of all rows, those of one row beside each other, as many for each."""

    rows: Int[Tensor, "R"]
    seeds: list[int]
    tokens: Float[Tensor, "R k D"]
    """None of them at first: k is 0."""

    def at(self, places: Int[Tensor, "r"]) -> "_Candidates":
        """Some of them."""
        seeds = [self.seeds[place] for place in places.tolist()]
        return _Candidates(rows=self.rows[places], seeds=seeds, tokens=self.tokens[places])


class _Drawing:
    """Draws and scores candidates, and counts what that costs each row."""

    def __init__(
        self,
        model: ARModel,
        condition: Condition,
        score: Score,
        sampling: Sampling,
        seeds: Sequence[int],
    ) -> None:
        self.model, self.condition, self.sampling = model, condition, sampling
        self.score, self.seeds = score, seeds
        self.all_rows = torch.arange(len(seeds), device=condition.keep.device)
        self.drawn = torch.zeros_like(self.all_rows)

    def start(self, rows: Int[Tensor, "r"], candidates: Sequence[int]) -> _Candidates:
        """Some candidates of some rows, by their numbers, before their first token."""
        seeds = [seed_of(self.seeds[row], 0, each) for row in rows.tolist() for each in candidates]
        tokens = torch.empty(len(seeds), 0, self.model.config.token_dim, device=rows.device)
        return _Candidates(rows=rows.repeat_interleave(len(candidates)), seeds=seeds, tokens=tokens)

    def branch(self, kept: _Candidates, branches: int, stage: int) -> _Candidates:
        """Let each go on in several ways, the first of them the one it would have gone alone."""
        places = torch.arange(len(kept.rows), device=kept.rows.device)
        new = kept.at(places.repeat_interleave(branches))
        of_row = len(new.rows) // len(self.all_rows)
        seeds = [
            seed if i % branches == 0 else seed_of(self.seeds[row], stage, i % of_row)
            for i, (row, seed) in enumerate(zip(new.rows.tolist(), new.seeds, strict=True))
        ]
        return replace(new, seeds=seeds)

    def draw(self, candidates: _Candidates, prefix: int) -> tuple[_Candidates, Float[Tensor, "R"]]:
        """Draw on to a prefix, and score that."""
        begun = candidates.tokens.shape[1]
        places = torch.arange(len(candidates.rows), device=candidates.rows.device)
        parts = [candidates.at(some) for some in places.split(TOGETHER)]
        tokens = [
            self.model.generate(
                self.condition.rows(part.rows),
                sampling=self.sampling,
                seeds=part.seeds,
                prefix=prefix,
                first=part.tokens if begun else None,
            )
            for part in parts
        ]
        cost = torch.full_like(candidates.rows, prefix - begun)
        self.drawn.index_add_(0, candidates.rows, cost)
        scores = [self._scored(each, part.rows) for each, part in zip(tokens, parts, strict=True)]
        return replace(candidates, tokens=torch.cat(tokens)), torch.cat(scores)

    def _scored(self, tokens: Float[Tensor, "R k D"], rows: Int[Tensor, "R"]) -> Tensor:
        scores = self.score(tokens, rows)
        if scores.shape != rows.shape:
            given = list(scores.shape)
            raise ValueError(f"each of {len(rows)} candidates needs a score, got {given}")
        if bool(scores.isnan().any()):
            raise ValueError("scores must be numbers, got NaN")
        return scores


def _beam(drawing: _Drawing, how: Search, stops: Sequence[int]) -> Found:
    """Judge the candidates at every stop, go on with the best; with one stop it is best-of-n."""
    rows = drawing.all_rows
    candidates = drawing.start(rows, range(how.candidates))
    for stage, stop in enumerate(stops):
        if stage:
            candidates = drawing.branch(candidates, how.branches, stage)
        candidates, scores = drawing.draw(candidates, stop)
        of_row = scores.view(len(rows), -1)  # [B, n]
        ranked = of_row.argsort(dim=1, descending=True, stable=True)
        keep = 1 if stop == stops[-1] else how.width
        best = (ranked[:, :keep] + of_row.shape[1] * rows[:, None]).flatten()
        candidates, scores = candidates.at(best), scores[best]
    return Found(tokens=candidates.tokens, scores=scores, drawn=drawing.drawn)


def _early_exit(drawing: _Drawing, how: Search, prefix: int) -> Found:
    """Draw one candidate after another for the rows whose best is not yet good enough."""
    assert how.enough is not None
    one, scores = drawing.draw(drawing.start(drawing.all_rows, [0]), prefix)
    tokens = one.tokens
    for number in range(1, how.candidates):
        rows = drawing.all_rows[scores < how.enough]
        if not len(rows):
            break
        one, found = drawing.draw(drawing.start(rows, [number]), prefix)
        better = found > scores[rows]
        tokens[rows[better]], scores[rows[better]] = one.tokens[better], found[better]
    return Found(tokens=tokens, scores=scores, drawn=drawing.drawn)


def seed_of(seed: int, stage: int, candidate: int) -> int:
    """The seed of a candidate that begins at a stage of its row's search; the first has the row's.

    Rows of neighbouring seeds have no candidates in common.
    """
    if stage == candidate == 0:
        return seed
    digest = blake2b(f"{seed} {stage} {candidate}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)

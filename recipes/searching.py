"""How good generated images become with what a search for them may cost.

The orderer's own score chooses; an independent judge, where there is one, says whether what it
chose is better.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ar import Found, Search, search_tokens
from recipes.conditions import condition_on
from recipes.decoding import decoded
from recipes.engine import pictures
from recipes.generation import Drawer
from recipes.judging import Judge
from recipes.own_score import own_score

BATCH = 250
CANDIDATES = (2, 4, 8, 16)
KEPT = 4
"""Of so many candidates a beam keeps one."""
JUDGED_AT = 0.25
"""Share of the tokens at which a narrowing beam is judged: what comes first in an image follows
from its caption, so the candidates of one caption differ too little before to be told apart."""
ENOUGH = 0.75
"""Share of the images drawn without a search whose score is too low to end an early exit."""
FIGURE = {
    "scenes": "colour_and_shape",
    "classes": "class",
    "retrieval": "found_at_1",
    "words": "words",
}
"""Which of a judge's figures is drawn."""


def searches(enough: float, tokens: int) -> dict[str, list[Search]]:
    """The methods, each with growing numbers of candidates."""
    widths = [(n, ceil(n / KEPT)) for n in CANDIDATES]
    at = (ceil(tokens * JUDGED_AT),)
    return {
        "best of n": [Search(candidates=n) for n in CANDIDATES],
        "narrowing beam": [Search(method="beam", candidates=n, width=w, at=at) for n, w in widths],
        "beam": [Search(method="beam", candidates=n, width=w, branches=n // w) for n, w in widths],
        "early exit": [
            Search(method="early_exit", candidates=n, enough=enough) for n in CANDIDATES
        ],
    }


def about_searches() -> dict[str, Any]:
    """How the methods were measured, for the protocol."""
    return {
        "candidates": [1, *CANDIDATES],
        "score": "the orderer's own: similarity of a prefix with the caption",
        "beams": f"one keeps 1 candidate of {KEPT} at 1, 2, 4, ... tokens, and goes on from them "
        f"with as many as it began with; a narrowing one keeps 1 of {KEPT} at {JUDGED_AT} of the "
        "tokens, and goes on with those alone",
        "enough": f"the score that {ENOUGH} of the images drawn without a search do not reach",
    }


@torch.no_grad()
def quality_by_budget(
    drawer: Drawer, captions: Sequence[str], judge: Judge, folder: Path
) -> dict[str, Any]:
    """What the judge says of the images that each method finds with so many candidates.

    Beside it stand `tokens`, how many were drawn for an image, all candidates together, and
    `score`, the similarity of the tokens that were kept with the caption: means over the images.

    Args:
        drawer: its orderer also scores what is drawn.
        captions: to draw from.
        judge: of the images.
        folder: for the curves.
    """
    model, orderer, processor = drawer.model, drawer.orderer, drawer.processor
    seeds = drawer.seeds(len(captions))

    def found_by(how: Search) -> list[Found]:
        parts = [slice(i, i + BATCH) for i in range(0, len(captions), BATCH)]
        return [
            search_tokens(
                model,
                condition_on(captions[part], model, orderer, processor),
                own_score(captions[part], orderer, processor),
                how,
                sampling=drawer.experiment.sampling,
                seeds=seeds[part],
            )
            for part in parts
        ]

    def measured(found: Sequence[Found]) -> dict[str, float]:
        images = decoded(orderer, torch.cat([each.tokens for each in found]))
        drawn = torch.cat([each.drawn for each in found])
        return {
            "tokens": drawn.double().mean().item(),
            "score": _scores(found).mean().item(),
            **judge.score(images),
        }

    without = found_by(Search())
    enough = _scores(without).quantile(ENOUGH).item()
    first = measured(without)
    by_method = {
        method: {"1": first, **{str(how.candidates): measured(found_by(how)) for how in growing}}
        for method, growing in searches(enough, model.config.tokens).items()
    }
    figure = FIGURE[drawer.experiment.evaluation.judge]
    for name in ("score", figure):
        lines = {
            method: {round(one["tokens"]): one[name] for one in of_one.values()}
            for method, of_one in by_method.items()
        }
        path = folder / f"search_{name}.png"
        pictures.curves(lines, path, x_label="tokens drawn for an image", y_label=name)
    return {"enough": enough, "by_method": by_method}


def _scores(found: Sequence[Found]) -> Tensor:
    return torch.cat([each.scores for each in found]).double().cpu()

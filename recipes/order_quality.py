"""How good an order is, beside what is drawn in it: measures of `ar.evaluation` on a trained pair.

N, M images   K tokens   D channels of a token
"""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ar import ARModel
from ar.evaluation import (
    Schooling,
    Sequences,
    gini,
    marginal_log_prob,
    measure_order,
    semantic_area,
    small_model,
    useless_tokens,
    variation,
)
from ar.model import NOISE_FLOOR
from data import Pairs
from orderer import prefix_lengths
from orderer.evaluation import readable
from orderer.sequences import ImageSequence
from recipes.decoding import decoded
from recipes.experiment import Experiment
from recipes.probing import tokens_of
from recipes.questions import questions

MEASURES = ("alike", "gain", "tokens", "semantic_area", "semantic_first", "scores")
LEAST_FIT = 50
"""Images a Gaussian needs for each of its dimensions: with fewer, what it lacks looks like gain."""


@torch.no_grad()
def order_quality(
    experiment: Experiment,
    pairs: Pairs,
    known: Float[Tensor, "N K"] | None,
    sequence: ImageSequence,
    model: ARModel,
) -> dict[str, Any]:
    """Measure an order on the first images, as many as are scored.

    Args:
        experiment: says how much is measured.
        pairs: the test images.
        known: what the model gives the tokens of the first of them, see `recipes.likelihood`.
        sequence: the order.
        model: of it.

    Returns:
        `alike`: how alike positions are for small models, see `ar.evaluation.measure_order`;
        `gain`: nats that the model gives each token over a Gaussian of its position, in the order
        in which they are modelled, with `variation` and `gini` over positions, null for a head
        without likelihood, and where images are too few for the Gaussian; `tokens`: how many are
        useless, and the area under the error; `semantic_area`: how much of what captions say a
        linear map reads from prefixes, the mean, and `semantic_first`: its share of what it reads
        from all tokens, null where it reads nothing, with its `scores`. All are null for an order
        that is drawn anew for each image: it has no positions and no prefixes to compare.
    """
    if model.config.order == "random":
        return dict.fromkeys(MEASURES)
    asked = questions(experiment, pairs, experiment.evaluation.probe_scenes)
    train, test = tokens_of(sequence, asked.fit), tokens_of(sequence, pairs)
    lengths = prefix_lengths(sequence.config.tokens)
    read = readable(train.cpu(), asked.fit_answers, test.cpu(), asked.test_answers, lengths)
    scores = {k: sum(at[k] for at in read.values()) / len(read) for k in lengths}
    area, whole = semantic_area(scores, chance=0.0), scores[lengths[-1]]
    number, steps = experiment.evaluation.scored, experiment.evaluation.probe_steps
    some = test[:number]
    errors = errors_of_prefixes(sequence, some, pairs.images[:number], asked.fit.images)
    return {
        "alike": _alike(train, test, Schooling(steps=steps, seed=experiment.seed)),
        "gain": _gain(known, train, some, model),
        "tokens": useless_tokens(errors),
        "semantic_area": area,
        "semantic_first": area / whole if whole > 0 else None,
        "scores": {str(k): score for k, score in scores.items()},
    }


@torch.enable_grad()
def _alike(
    train: Float[Tensor, "M K D"], test: Float[Tensor, "N K D"], schooling: Schooling
) -> dict[str, Any]:
    _, tokens, channels = train.shape
    return measure_order(
        partial(small_model, tokens, channels),
        Sequences(tokens=train.clone()),
        Sequences(tokens=test.clone()),
        schooling=schooling,
    )


def _gain(
    known: Float[Tensor, "N K"] | None,
    train: Float[Tensor, "M K D"],
    tokens: Float[Tensor, "N K D"],
    model: ARModel,
) -> dict[str, Any] | None:
    if known is None or len(train) < LEAST_FIT * train.shape[2]:
        return None
    gained = known.double() - marginal_log_prob(train, tokens, NOISE_FLOOR * model.std)
    at = gained.mean(dim=0)  # [K]
    is_gained = at.mean().item() > 0
    return {
        "at": at.tolist(),
        "total": at.sum().item(),
        "variation": variation(at) if is_gained else None,
        "gini": gini(at) if is_gained else None,
    }


def errors_of_prefixes(
    sequence: ImageSequence,
    tokens: Float[Tensor, "N K D"],
    images: UInt8[Tensor, "N 3 S S"],
    train: UInt8[Tensor, "M 3 S S"],
) -> Float[Tensor, "N K+1"]:
    """Mean squared error of the mean training image, and of each image from each of its prefixes;
    levels are counted from 0 to 1.
    """
    rebuilt = (decoded(sequence, tokens[:, :k]).float() for k in range(1, tokens.shape[1] + 1))
    guesses = (train.float().mean(dim=0, keepdim=True), *rebuilt)
    return torch.stack(
        [((guess - images.float()) / 255).square().mean(dim=(1, 2, 3)) for guess in guesses], dim=1
    )

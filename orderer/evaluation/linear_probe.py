"""Linear probes: what a linear map reads off frozen tokens, and from which prefix on.

    N images   K tokens   D channels of a token   C channels read   A answers of a factor
    k prefix length

A factor is a set of yes-or-no questions about an image ("is there a ring?"). Each is answered by
logistic regression on the first k tokens; its score is the balanced accuracy, stretched so that 0
is chance and 1 is always right. The weight of the squared norm is chosen for each prefix: with one
for all, a map of many tokens would learn more by heart than one of few, and say less.

Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes",
https://arxiv.org/abs/1610.01644; the weight as in Radford et al. 2021, appendix A.3,
https://arxiv.org/abs/2103.00020.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional as F

RIDGES = (10.0, 1.0, 1e-1, 1e-2, 1e-3, 1e-4)
"""Weights of the squared norm of the map, on features of unit variance."""
HELD = 10
"""Every so many-th image chooses among them, before it is learned from, too."""
READABLE = 0.5
"""The score at which a factor counts as readable."""
STEPS = 60
"""Iterations of L-BFGS; more change no score by a point."""
ENOUGH = 1e-6
"""Nats by which the loss of the last of them fell."""


def fit_linear(
    features: Float[Tensor, "N C"],
    answers: Bool[Tensor, "N A"],
    ridge: float | Float64[Tensor, "A"],
    start: Float64[Tensor, "C1 A"] | None = None,
) -> Float64[Tensor, "C1 A"]:
    """Fit a logistic regression for every answer at once; the last row is the bias.

    Yes and no weigh the same in each, however rare one of them is.

    Args:
        features: of unit variance.
        answers: to every question.
        ridge: weight of the squared norm, of each question or of all.
        start: where the search begins, that of another weight for instance; at 0 without.

    Raises:
        ValueError: for features that are not finite, or a question that all images answer alike.
    """
    if not bool(features.isfinite().all()):
        raise ValueError("features must be finite, got NaN or infinity")
    share = answers.double().mean(dim=0)  # [A]
    if not bool(_differ(answers).all()):
        alike = int((~_differ(answers)).nonzero()[0])
        raise ValueError(f"all images answer question {alike} alike, nothing can be learned of it")
    x = with_bias(features)
    zero = torch.zeros(x.shape[1], answers.shape[1], dtype=torch.float64)
    linear = (zero if start is None else start.clone()).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [linear], max_iter=STEPS, tolerance_change=ENOUGH, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (_losses(linear, x, answers, share) + ridge * linear[:-1].square().sum(dim=0)).sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return linear.detach()


def best_ridges(
    features: Float[Tensor, "N C"], answers: Mapping[str, Bool[Tensor, "N A"]]
) -> dict[str, float]:
    """Of every factor the weight that leaves the smallest loss on every tenth image.

    Those images do not learn meanwhile. Weights are tried from the largest on, until no factor's
    loss falls. Questions that all of the others answer alike do not take part.

    Raises:
        ValueError: for less than 10 images, or a factor of which no question is left.
    """
    if len(features) < HELD:
        raise ValueError(
            f"a linear probe needs at least {HELD} images to fit on, got {len(features)}"
        )
    held = torch.arange(len(features)) % HELD == 0
    asked = {factor: each[:, _differ(each[~held])] for factor, each in answers.items()}
    for factor, each in asked.items():
        if not each.shape[1]:
            raise ValueError(
                f"all images answer every question of {factor} alike, nothing can be learned of it"
            )
    counts = [each.shape[1] for each in asked.values()]
    every = torch.cat(list(asked.values()), dim=1)
    share = every[~held].double().mean(dim=0)
    best, least, linear = dict.fromkeys(asked, RIDGES[0]), dict.fromkeys(asked, math.inf), None
    for ridge in RIDGES:
        linear = fit_linear(features[~held], every[~held], ridge, linear)
        losses = _losses(linear, with_bias(features[held]), every[held], share).split(counts)
        found = {factor: each.sum().item() for factor, each in zip(asked, losses, strict=True)}
        falls = [factor for factor in asked if found[factor] < least[factor]]
        if not falls:
            break
        best |= dict.fromkeys(falls, ridge)
        least |= {factor: found[factor] for factor in falls}
    return best


def _differ(answers: Bool[Tensor, "N A"]) -> Bool[Tensor, "A"]:
    """Which questions not all images answer alike."""
    return answers.any(dim=0) & ~answers.all(dim=0)


def _losses(
    linear: Float64[Tensor, "C1 A"],
    features: Float64[Tensor, "N C1"],
    answers: Bool[Tensor, "N A"],
    share: Float64[Tensor, "A"],
) -> Float64[Tensor, "A"]:
    """The cross entropy of each question, in nats; `share` is how often yes is right."""
    weight = torch.where(answers, 0.5 / share, 0.5 / (1 - share))  # [N, A]
    errors = F.binary_cross_entropy_with_logits(
        features @ linear, answers.double(), weight, reduction="none"
    )
    return errors.mean(dim=0)


def with_bias(features: Float[Tensor, "N C"]) -> Float64[Tensor, "N C1"]:
    """Add a channel that is always 1."""
    return F.pad(features.double(), (0, 1), value=1.0)


def balanced_scores(
    linear: Float64[Tensor, "C1 A"], features: Float[Tensor, "N C"], answers: Bool[Tensor, "N A"]
) -> Float64[Tensor, "A"]:
    """Score each question on other images: 0 is chance, 1 always right, below 0 worse than chance.

    One that all of them answer alike has no score, NaN.
    """
    return balanced_accuracy(with_bias(features) @ linear > 0, answers)


def balanced_accuracy(
    said: Bool[Tensor, "N A"], answers: Bool[Tensor, "N A"]
) -> Float64[Tensor, "A"]:
    """The mean of how often yes and how often no is right, stretched so that 0 is chance."""
    right = (said == answers).double()
    yes = (right * answers).sum(dim=0) / answers.sum(dim=0)
    no = (right * ~answers).sum(dim=0) / (~answers).sum(dim=0)
    return yes + no - 1


def readable(
    train: Float[Tensor, "N K D"],
    train_answers: Mapping[str, Bool[Tensor, "N A"]],
    test: Float[Tensor, "M K D"],
    test_answers: Mapping[str, Bool[Tensor, "M A"]],
    prefixes: Sequence[int],
) -> dict[str, dict[int, float]]:
    """Score every factor at every prefix: the mean over its questions.

    Args:
        train: tokens of at least 10 images to fit on, in an order that says nothing of them.
        train_answers: of each factor, what is true of each image.
        test: tokens of other images.
        test_answers: the same of those.
        prefixes: lengths from 1 on.
    """
    mean, std = train.mean(dim=0), train.std(dim=0).clamp(min=1e-6)  # [K, D]
    train, test = (train - mean) / std, (test - mean) / std
    found: dict[str, dict[int, float]] = {factor: {} for factor in train_answers}
    counts = {factor: answers.shape[1] for factor, answers in train_answers.items()}
    asked = torch.cat(list(train_answers.values()), dim=1)
    true = torch.cat([test_answers[factor] for factor in train_answers], dim=1)
    for k in prefixes:
        of_train, of_test = train[:, :k].flatten(1), test[:, :k].flatten(1)
        ridges = best_ridges(of_train, train_answers)
        each = [ridges[factor] for factor, count in counts.items() for _ in range(count)]
        linear = fit_linear(of_train, asked, torch.tensor(each, dtype=torch.float64))
        scores = balanced_scores(linear, of_test, true).split(list(counts.values()))
        for factor, of_factor in zip(counts, scores, strict=True):
            found[factor][k] = of_factor.nanmean().item()
    return found


def readable_from(scores: Mapping[int, float]) -> float:
    """The prefix length at which a factor becomes readable: half-way from chance to always right.

    Between two measured prefixes it is interpolated in log2 k, and before the first in the score;
    a factor that no prefix tells comes after all others, at twice the longest.
    """
    lengths = sorted(scores)
    if scores[lengths[0]] >= READABLE:
        return lengths[0] * READABLE / scores[lengths[0]]
    for before, after in pairwise(lengths):
        if scores[after] >= READABLE:
            part = (READABLE - scores[before]) / (scores[after] - scores[before])
            return before * (after / before) ** part
    return 2.0 * lengths[-1]

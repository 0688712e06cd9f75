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


def fit_linear(
    features: Float[Tensor, "N C"], answers: Bool[Tensor, "N A"], ridge: float
) -> Float64[Tensor, "C1 A"]:
    """Fit a logistic regression for every answer at once; the last row is the bias.

    Yes and no weigh the same in each, however rare one of them is.

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
    linear = torch.zeros(x.shape[1], answers.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([linear], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _loss(linear, x, answers, share) + ridge * linear[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return linear.detach()


def best_ridge(features: Float[Tensor, "N C"], answers: Bool[Tensor, "N A"]) -> float:
    """The weight that leaves the smallest loss on every tenth image, of those that do not learn.

    They are tried from the largest on, until the loss grows. Questions that all of the others
    answer alike do not take part.

    Raises:
        ValueError: for less than 10 images, or where no question is left.
    """
    if len(features) < HELD:
        raise ValueError(
            f"a linear probe needs at least {HELD} images to fit on, got {len(features)}"
        )
    held = torch.arange(len(features)) % HELD == 0
    asked = _differ(answers[~held])
    if not bool(asked.any()):
        raise ValueError("all images answer every question alike, nothing can be learned of them")
    known, unknown = answers[~held][:, asked], answers[held][:, asked]
    share = known.double().mean(dim=0)
    best, least = RIDGES[0], math.inf
    for ridge in RIDGES:
        linear = fit_linear(features[~held], known, ridge)
        loss = _loss(linear, with_bias(features[held]), unknown, share).item()
        if loss >= least:
            break
        best, least = ridge, loss
    return best


def _differ(answers: Bool[Tensor, "N A"]) -> Bool[Tensor, "A"]:
    """Which questions not all images answer alike."""
    return answers.any(dim=0) & ~answers.all(dim=0)


def _loss(
    linear: Float64[Tensor, "C1 A"],
    features: Float64[Tensor, "N C1"],
    answers: Bool[Tensor, "N A"],
    share: Float64[Tensor, "A"],
) -> Float64[Tensor, ""]:
    """The cross entropy, in nats, summed over questions; `share` is how often yes is right."""
    weight = torch.where(answers, 0.5 / share, 0.5 / (1 - share))  # [N, A]
    errors = F.binary_cross_entropy_with_logits(
        features @ linear, answers.double(), weight, reduction="none"
    )
    return errors.mean(dim=0).sum()


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
    for k in prefixes:
        of_train, of_test = train[:, :k].flatten(1), test[:, :k].flatten(1)
        for factor, answers in train_answers.items():
            linear = fit_linear(of_train, answers, best_ridge(of_train, answers))
            scores = balanced_scores(linear, of_test, test_answers[factor])
            found[factor][k] = scores.nanmean().item()
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

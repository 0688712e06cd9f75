"""Linear probes: what a linear map reads off frozen tokens, and from which prefix on.

    N images   K tokens   D channels of a token   C channels read   A answers of a factor
    k prefix length

A factor is a set of yes-or-no questions about an image ("is there a ring?"). Each is answered by
logistic regression on the first k tokens; its score is the balanced accuracy, stretched so that 0
is chance and 1 is always right.

Source: Alain and Bengio 2016, "Understanding intermediate layers using linear classifier probes",
https://arxiv.org/abs/1610.01644.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor
from torch.nn import functional as F

RIDGE = 1e-3
"""Weight of the squared norm of the map, on features of unit variance."""
READABLE = 0.5
"""The score at which a factor counts as readable."""
STEPS = 60
"""Iterations of L-BFGS; more change no score by a point."""


def fit_linear(
    features: Float[Tensor, "N C"], answers: Bool[Tensor, "N A"]
) -> Float64[Tensor, "C1 A"]:
    """Fit a logistic regression for every answer at once; the last row is the bias.

    Yes and no weigh the same in each, however rare one of them is.

    Raises:
        ValueError: for features that are not finite, or a question that all images answer alike.
    """
    if not bool(features.isfinite().all()):
        raise ValueError("features must be finite, got NaN or infinity")
    share = answers.double().mean(dim=0)  # [A]
    if bool(((share == 0) | (share == 1)).any()):
        alike = int(((share == 0) | (share == 1)).nonzero()[0])
        raise ValueError(f"all images answer question {alike} alike, nothing can be learned of it")
    x, y = with_bias(features), answers.double()
    weight = torch.where(answers, 0.5 / share, 0.5 / (1 - share))  # [N, A]
    linear = torch.zeros(x.shape[1], y.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([linear], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(x @ linear, y, weight, reduction="none")
        value = errors.mean(dim=0).sum() + RIDGE * linear[:-1].square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    return linear.detach()


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
        train: tokens of images to fit on.
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
            linear = fit_linear(of_train, answers)
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

"""A linear probe of classes: what a plane parts, chance, and an implementation that is not ours."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from orderer.evaluation import probed_accuracy
from orderer.evaluation.class_probe import accuracy_of, fit_classes


def clouds(number: int, classes: int, spread: float, seed: int) -> tuple[torch.Tensor, ...]:
    """Points around a corner for each class."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (number,), generator=random)
    points = torch.randn(number, 12, generator=random) * spread
    points[torch.arange(number), labels] += 1.0
    return points, labels


def test_two_classes_that_a_plane_parts_are_told_without_error() -> None:
    known, labels = clouds(100, 2, 0.05, seed=0)
    asked, true = clouds(100, 2, 0.05, seed=1)
    assert probed_accuracy(known, labels, asked, true) == 1.0


def test_labels_that_have_nothing_to_do_with_the_features_are_told_by_chance() -> None:
    known, labels = torch.randn(2_000, 5), torch.randint(4, (2_000,))
    asked, true = torch.randn(2_000, 5), torch.randint(4, (2_000,))
    assert abs(probed_accuracy(known, labels, asked, true) - 0.25) < 4 * (0.1875 / 2_000) ** 0.5


@pytest.mark.parametrize("ridge", [1e-4, 1e-2])
def test_it_is_within_half_a_point_of_scikit_learn(ridge: float) -> None:
    known, labels = clouds(600, 10, 0.5, seed=2)
    asked, true = clouds(2_000, 10, 0.5, seed=3)
    theirs = LogisticRegression(C=1 / (ridge * len(known)), tol=1e-8, max_iter=1_000)
    theirs.fit(known.double().numpy(), labels.numpy())
    expected = theirs.score(asked.double().numpy(), true.numpy())
    ours = accuracy_of(fit_classes(known, labels, 10, ridge), asked, true)
    assert 0.6 < ours < 0.95 and abs(ours - expected) <= 0.005


def test_what_cannot_be_fitted_is_refused() -> None:
    features, labels = torch.randn(9, 2), torch.arange(9) % 3
    with pytest.raises(ValueError, match="at least 10 images to fit on, got 9"):
        probed_accuracy(features, labels, features, labels)
    with pytest.raises(ValueError, match=r"a label must lie in 0\.\.1, got 2"):
        fit_classes(features, labels, 2, 1e-3)
    with pytest.raises(ValueError, match="features must be finite"):
        fit_classes(features / 0, labels, 3, 1e-3)

"""Nearest neighbours: one neighbour copies, many vote, chance has no score."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from orderer.evaluation import nearest_accuracy, nearest_scores
from orderer.evaluation.nearest import TEMPERATURE, nearest_votes


def test_an_image_that_is_known_votes_for_itself() -> None:
    features, labels = torch.randn(30, 8), torch.arange(30) % 3
    answers = torch.nn.functional.one_hot(labels)
    assert torch.equal(nearest_votes(features, answers, features, 1).argmax(dim=1), labels)


def test_lengths_do_not_matter() -> None:
    known, answers, asked = torch.randn(30, 8), torch.randint(2, (30, 4)).bool(), torch.randn(5, 8)
    longer = torch.rand(30, 1) + 0.5
    torch.testing.assert_close(
        nearest_votes(longer * known, answers, 3 * asked), nearest_votes(known, answers, asked)
    )


@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_scikit_learn_finds(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    known, asked = (torch.randn(n, 6, generator=random) for n in (200, 100))
    labels, true = (torch.randint(4, (n,), generator=random) for n in (200, 100))
    theirs = KNeighborsClassifier(
        20,
        metric="cosine",
        algorithm="brute",
        weights=lambda d: np.exp((1 - d) / TEMPERATURE),
    )
    expected = theirs.fit(known.double().numpy(), labels.numpy()).score(
        asked.double().numpy(), true.numpy()
    )
    assert nearest_accuracy(known, labels, asked, true) == pytest.approx(expected)


def test_questions_that_neighbours_agree_on_are_told_and_others_score_about_chance() -> None:
    answers = torch.rand(2_000, 2) < 0.2
    features = torch.randn(2_000, 5)
    features[:, 0] += 8.0 * answers[:, 0]
    scores = nearest_scores(features[:1_000], answers[:1_000], features[1_000:], answers[1_000:])
    assert scores[0] > 0.9 and abs(scores[1]) < 0.2


def test_no_neighbours_and_no_numbers_are_refused() -> None:
    known, answers = torch.randn(4, 2), torch.ones(4, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="neighbours must be at least 1, got 0"):
        nearest_votes(known, answers, known, 0)
    with pytest.raises(ValueError, match="features must be finite"):
        nearest_votes(known, answers, torch.full((1, 2), float("nan")))

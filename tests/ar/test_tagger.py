"""The judge of words, and the features that distances are taken in."""

import pytest
import torch
from torch import Tensor

from ar.evaluation import chance_of, tag_precision, train_classifier, train_tagger
from ar.evaluation.tagger import average_precision


def tinted(number: int) -> tuple[Tensor, Tensor]:
    """Noise with more red (the first word), more blue (the second), both or neither."""
    tags = torch.randint(2, (number, 2)).bool()
    images = torch.randint(0, 150, (number, 3, 8, 8))
    images[:, 0] += 100 * tags[:, 0, None, None]
    images[:, 2] += 100 * tags[:, 1, None, None]
    return images.to(torch.uint8), tags


def test_a_tagger_learns_words_that_come_together_and_apart() -> None:
    tagger = train_tagger(*tinted(200), steps=40, batch_size=16)
    assert tag_precision(tagger, *tinted(100)) > 0.95


def test_the_precision_at_each_wanted_image_is_averaged() -> None:
    wanted = torch.tensor([True, False, True, False])
    scores = torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert average_precision(scores, wanted) == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert average_precision(-scores, wanted) == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_who_tells_nothing_apart_has_the_precision_of_a_guess() -> None:
    wanted = torch.tensor([True, False, False, False])
    assert average_precision(torch.zeros(4), wanted) == 0.25


def test_chance_is_what_random_scores_come_to() -> None:
    tags = torch.rand(400, 3) < torch.tensor([0.1, 0.3, 0.6])
    tags = torch.cat([tags, torch.zeros(400, 1, dtype=torch.bool)], dim=1)  # of no image: left out
    found = [average_precision(torch.rand(400), tags[:, t]) for _ in range(30) for t in range(3)]
    assert chance_of(tags) == pytest.approx(sum(found) / len(found), abs=0.02)


def test_words_of_no_image_are_left_out() -> None:
    images, tags = tinted(40)
    tagger = train_tagger(images, tags, steps=20, batch_size=16)
    without = tags.clone()
    without[:, 1] = False
    scores = tagger(images)[:, 0].detach().double()
    assert tag_precision(tagger, images, without) == average_precision(scores, tags[:, 0])
    with pytest.raises(ValueError, match="none of the 2 words is said of some images"):
        tag_precision(tagger, images, torch.zeros_like(tags))


def test_features_are_what_the_labels_are_read_from_whatever_the_chunk() -> None:
    images, tags = tinted(20)
    classifier = train_classifier(images, tags[:, 0].long(), 2, steps=2, batch_size=4)
    features = classifier.features(images)
    assert features.shape == (20, 128)
    assert torch.allclose(classifier.label(features), classifier(images), atol=1e-6)
    assert torch.allclose(classifier.features(images, chunk=7), features, atol=1e-6)
    with pytest.raises(ValueError, match="must be in eval mode"):
        classifier.train().features(images)


def test_taggers_of_one_seed_are_equal_and_leave_the_global_seed_alone() -> None:
    images, tags = tinted(20)
    state = torch.get_rng_state()
    first, again = (train_tagger(images, tags, steps=2, batch_size=4) for _ in range(2))
    assert torch.equal(first(images), again(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_tags_that_cannot_be_learned_are_refused() -> None:
    images, tags = tinted(4)
    with pytest.raises(ValueError, match=r"needs tags, got \(0, 2\) for 0 images"):
        train_tagger(images[:0], tags[:0])
    with pytest.raises(ValueError, match="each be said of some images and not of others"):
        train_tagger(images, torch.ones_like(tags))

"""Zero-shot classification: cases whose answer is known."""

import pytest
import torch
from torch.nn import functional as F

from orderer.evaluation import class_embeddings, classification_metrics


def test_templates_are_normalised_then_averaged_then_normalised() -> None:
    texts = torch.tensor([[[3.0, 0.0], [0.0, 100.0]]])  # of one class, at a right angle
    expected = torch.tensor([[2**-0.5, 2**-0.5]])
    torch.testing.assert_close(class_embeddings(texts), expected)


def test_known_ranks_give_known_shares() -> None:
    classes = torch.eye(6)
    images = torch.tensor(
        [[6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1], [6.0, 5, 4, 3, 2, 1]]
    )
    found = classification_metrics(images, classes, torch.tensor([0, 1, 4, 5]))
    assert found == {"top1": 0.25, "top5": 0.75, "ties": 0}


def test_a_collapsed_model_scores_chance() -> None:
    found = classification_metrics(torch.ones(7, 3), torch.ones(10, 3), torch.arange(7))
    assert found == {"top1": pytest.approx(0.1), "top5": pytest.approx(0.5), "ties": 7}


def test_the_order_of_classes_does_not_matter() -> None:
    images, classes = torch.randn(50, 8), F.normalize(torch.randn(9, 8), dim=-1)
    labels, shuffled = torch.randint(9, (50,)), torch.randperm(9)
    assert classification_metrics(
        images, classes[shuffled], shuffled.argsort()[labels]
    ) == pytest.approx(classification_metrics(images, classes, labels))


def test_it_agrees_with_counting_by_hand() -> None:
    images, classes, labels = torch.randn(40, 8), torch.randn(12, 8), torch.randint(12, (40,))
    best = (images.double() @ classes.double().T).argsort(dim=1, descending=True)
    found = classification_metrics(images, classes, labels, chunk=7)
    assert found["top1"] == pytest.approx((best[:, 0] == labels).double().mean().item())
    among = (best[:, :5] == labels[:, None]).any(dim=1).double().mean()
    assert found["top5"] == pytest.approx(among.item())


def test_a_template_of_long_embeddings_counts_no_more_than_another() -> None:
    texts = torch.randn(5, 3, 8)
    scaled = texts * torch.tensor([1.0, 50.0, 0.02])[:, None]
    torch.testing.assert_close(class_embeddings(scaled), class_embeddings(texts))
    torch.testing.assert_close(class_embeddings(texts[:, [2, 0, 1]]), class_embeddings(texts))


def test_a_label_of_no_class_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a label must lie in 0\.\.2, got 3"):
        classification_metrics(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([3]))


def test_half_precision_is_refused() -> None:
    with pytest.raises(ValueError, match="text embeddings must be fp32 or fp64"):
        classification_metrics(torch.ones(1, 2), torch.ones(3, 2).half(), torch.tensor([0]))


@pytest.mark.parametrize("number", [1, 3])
def test_another_number_of_labels_than_images_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"2 images need a label each, got {number}"):
        classification_metrics(torch.ones(2, 2), torch.ones(3, 2), torch.arange(number))


def test_a_place_below_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match=r"ks must be places from 1 on, got \[1, 0\]"):
        classification_metrics(torch.ones(1, 2), torch.ones(3, 2), torch.tensor([0]), ks=(1, 0))


def test_an_interval_is_as_wide_as_a_coin_thrown_as_often() -> None:
    images = torch.eye(2).repeat(200, 1)
    labels = torch.arange(400) // 2 % 2  # right in half of the cases
    found = classification_metrics(images, torch.eye(2), labels, ks=(1,), draws=1000)
    assert found["top1"] == 0.5
    sure = found["intervals"]["top1"]
    assert sure["standard_error"] == pytest.approx(0.5 / 400**0.5, rel=0.1)
    assert sure["low"] == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)

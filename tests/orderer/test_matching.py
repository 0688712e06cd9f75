"""Hard negatives: near, and never right."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from orderer.objectives import hard_negatives, matching_loss

SCALE = torch.tensor(5.0)


def embedded(batch: int, prefixes: int) -> tuple[Tensor, Tensor]:
    drawn = torch.randn(2, batch, prefixes, 4)
    images, texts = F.normalize(drawn, dim=-1)
    return images, texts


def test_a_negative_never_has_an_equal_caption() -> None:
    images, texts = embedded(8, 2)
    captions = torch.tensor([[0, 1], [0, 2], [1, 1], [1, 2], [2, 3], [2, 3], [3, 4], [3, 1]])
    places = torch.tensor([0, 1] * 4)
    own = captions.gather(1, places[:, None])[:, 0]
    for _ in range(50):
        drawn = hard_negatives(images, texts, captions, SCALE, places)
        assert (captions[drawn.texts, places] != own).all()
        assert (captions[drawn.images, places] != own).all()
        assert drawn.exist.all()


def test_negatives_are_drawn_as_contrast_finds_them() -> None:
    images, texts = embedded(4, 3)
    captions = torch.arange(4)[:, None].expand(-1, 3)
    places = torch.tensor([0, 1, 2, 0])
    counts = torch.zeros(2, 4, 4)
    rows = torch.arange(4)
    for _ in range(2000):
        drawn = hard_negatives(images, texts, captions, SCALE, places)
        counts[0, rows, drawn.texts] += 1
        counts[1, rows, drawn.images] += 1
    for row, place in enumerate(places.tolist()):
        scores = torch.stack(
            [texts[:, place] @ images[row, place], images[:, place] @ texts[row, place]]
        )
        scores[:, row] = -math.inf
        expected = (SCALE * scores).softmax(dim=1)
        torch.testing.assert_close(counts[:, row] / 2000, expected, atol=0.06, rtol=0)


def test_where_all_captions_are_equal_there_is_no_negative() -> None:
    images, texts = embedded(3, 1)
    captions = torch.zeros(3, 1, dtype=torch.long)
    drawn = hard_negatives(images, texts, captions, SCALE, torch.zeros(3, dtype=torch.long))
    assert not drawn.exist.any()
    logits = torch.zeros(3)
    loss = matching_loss(logits, 99 * torch.ones(3), 99 * torch.ones(3), drawn.exist)
    torch.testing.assert_close(loss.item(), math.log(2))


def test_the_loss_is_the_mean_over_right_and_wrong_pairs() -> None:
    right, wrong = torch.tensor([2.0]), torch.tensor([-1.0])
    loss = matching_loss(right, wrong, wrong, torch.tensor([True]))
    expected = (math.log1p(math.exp(-2)) + 2 * math.log1p(math.exp(-1))) / 3
    torch.testing.assert_close(loss.item(), expected, atol=1e-6, rtol=0)

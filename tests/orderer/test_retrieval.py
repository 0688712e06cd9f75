"""What the retrieval figures promise."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor

from orderer.evaluation import retrieval_metrics


def random_pairs(seed: int, images: int = 7, levels: int | None = None) -> tuple[Tensor, ...]:
    """Ragged captions in any order; `levels` makes the embeddings small integers, full of ties."""
    random = torch.Generator().manual_seed(seed)
    captions = torch.randint(1, 4, (images,), generator=random)
    image_of_text = torch.repeat_interleave(torch.arange(images), captions)
    image_of_text = image_of_text[torch.randperm(len(image_of_text), generator=random)]
    shapes = [(images, 3), (len(image_of_text), 3)]
    if levels is None:
        embeddings = [torch.randn(shape, generator=random) for shape in shapes]
    else:
        embeddings = [torch.randint(levels, s, generator=random).float() for s in shapes]
    return (*embeddings, image_of_text)


def by_brute_force(images: Tensor, texts: Tensor, image_of_text: Tensor, k: int) -> list[float]:
    """Recall at k both ways, as a loop over every query and its sorted gallery."""
    scores = (images.double() @ texts.double().T).tolist()
    owner = image_of_text.tolist()
    found_text = [
        any(owner[j] == i for j in sorted(range(len(texts)), key=lambda j: -row[j])[:k])
        for i, row in enumerate(scores)
    ]
    found_image = [
        owner[j] in sorted(range(len(images)), key=lambda i: -scores[i][j])[:k]
        for j in range(len(texts))
    ]
    return [np.mean(found_text).item(), np.mean(found_image).item()]


def over_all_orders(scores: list[float], own: set[int], measure: Callable[[int], float]) -> float:
    """The mean of `measure(place of the best own item)` over every order that breaks the ties."""
    places = []
    for order in permutations(range(len(scores))):
        ranked = sorted(order, key=lambda item: -scores[item])
        places.append(1 + min(ranked.index(item) for item in own))
    return np.mean([measure(place) for place in places]).item()


def test_every_rank_of_a_hand_case() -> None:
    scores = torch.tensor(  # of image 0, 1, 2 with captions 0..4
        [
            [9.0, 1.0, 2.0, 3.0, 4.0],  # own 0, 1: place 1
            [8.0, 7.0, 5.0, 6.0, 1.0],  # own 2: place 4
            [3.0, 9.0, 7.0, 2.0, 5.0],  # own 3, 4: place 3
        ]
    )  # places of the own image: caption 0: 1, 1: 3, 2: 2, 3: 3, 4: 1
    found = retrieval_metrics(scores, torch.eye(5), torch.tensor([0, 0, 1, 2, 2]), (1, 2, 3, 4))
    assert found["image_to_text"] == {
        "r1": pytest.approx(1 / 3),
        "r2": pytest.approx(1 / 3),
        "r3": pytest.approx(2 / 3),
        "r4": 1.0,
        "median_rank": 3.0,
    }
    assert found["text_to_image"] == {
        "r1": pytest.approx(2 / 5),
        "r2": pytest.approx(3 / 5),
        "r3": 1.0,
        "r4": 1.0,
        "median_rank": 2.0,
    }
    assert found["ties"] == {"image_to_text": 0, "text_to_image": 0}


def test_perfect_embeddings_find_everything_first() -> None:
    found = retrieval_metrics(torch.eye(6), torch.eye(6).repeat(5, 1), torch.arange(6).repeat(5))
    for direction in ("image_to_text", "text_to_image"):
        assert found[direction] == {"r1": 1.0, "r5": 1.0, "r10": 1.0, "median_rank": 1.0}


def test_a_collapsed_model_scores_exactly_chance_and_every_query_is_a_tie() -> None:
    image_of_text = torch.arange(50).repeat_interleave(5)
    collapsed = torch.full((1, 64), 0.125)
    found = retrieval_metrics(collapsed.repeat(50, 1), collapsed.repeat(250, 1), image_of_text)
    assert found["ties"] == {"image_to_text": 50, "text_to_image": 250}
    assert found["text_to_image"] == pytest.approx(
        {"r1": 1 / 50, "r5": 5 / 50, "r10": 10 / 50, "median_rank": 25.5}, abs=1e-12
    )
    none_of_five = np.prod([(245 - i) / (250 - i) for i in range(5)])
    assert found["image_to_text"]["r1"] == pytest.approx(5 / 250, abs=1e-12)
    assert found["image_to_text"]["r5"] == pytest.approx(1 - none_of_five, abs=1e-12)
    assert found["image_to_text"]["median_rank"] == pytest.approx(251 / 6, abs=1e-12)


def ragged(images: int) -> Tensor:
    """Five to seven captions for each image."""
    return torch.repeat_interleave(torch.arange(images), 5 + torch.arange(images) % 3)


def test_random_embeddings_score_chance_both_ways() -> None:
    random, owner = torch.Generator().manual_seed(0), ragged(500)
    images, texts = (torch.randn(n, 16, generator=random) for n in (500, len(owner)))
    found = retrieval_metrics(images, texts, owner)
    for k in (1, 5, 10):
        of_text = k / 500
        none = [np.prod([1 - n / (len(owner) - i) for i in range(k)]) for n in owner.bincount()]
        of_image = 1 - np.mean(none).item()
        for way, chance, queries in (
            ("text_to_image", of_text, len(owner)),
            ("image_to_text", of_image, 500),
        ):
            sigma = (chance * (1 - chance) / queries) ** 0.5
            assert abs(found[way][f"r{k}"] - chance) < 4 * sigma


def test_ragged_captions_hit_if_any_of_them_is_found() -> None:
    """The first caption of each image is right, the others are of the next image's place."""
    owner = ragged(7)
    is_first = torch.cat([torch.tensor([True]), owner[1:] != owner[:-1]])
    texts = torch.eye(7)[torch.where(is_first, owner, (owner + 1) % 7)]
    found = retrieval_metrics(torch.eye(7), texts, owner, ks=(1, 2))
    assert found["text_to_image"]["r1"] == pytest.approx(7 / len(owner))
    before = (owner.bincount() - 1).roll(1).double()  # captions of the image before, level with it
    assert found["image_to_text"]["r1"] == pytest.approx((1 / (1 + before)).mean().item())
    assert found["ties"]["image_to_text"] == 7


@pytest.mark.parametrize("seed", range(100))
def test_without_ties_it_equals_a_loop_over_sorted_lists(seed: int) -> None:
    pairs = random_pairs(seed)
    found = retrieval_metrics(*pairs, ks=(1, 2, 5))
    for k in (1, 2, 5):
        recalls = [found[way][f"r{k}"] for way in ("image_to_text", "text_to_image")]
        assert recalls == pytest.approx(by_brute_force(*pairs, k), abs=1e-12)


@pytest.mark.parametrize("seed", range(100))
def test_it_equals_scikit_learns_accuracy_among_the_best(seed: int) -> None:
    """Which knows one right answer: of an image the caption of its own that is best."""
    images, texts, owner = random_pairs(seed)
    scores = (images.double() @ texts.double().T).numpy()
    own = np.where(owner.numpy() == np.arange(len(images))[:, None], scores, -np.inf)
    found = retrieval_metrics(images, texts, owner, ks=(1, 2, 5))
    for k in (1, 2, 5):
        for way, true, scored in (
            ("image_to_text", own.argmax(axis=1), scores),
            ("text_to_image", owner.numpy(), scores.T),
        ):
            theirs = top_k_accuracy_score(true, scored, k=k, labels=range(scored.shape[1]))
            assert found[way][f"r{k}"] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_with_ties_it_is_the_mean_over_every_order_that_breaks_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(0, 3, (2, 6)).astype(np.float32)
    image_of_text = [0, 1, 1, 0, 1, 0]
    found = retrieval_metrics(
        torch.from_numpy(scores), torch.eye(6), torch.tensor(image_of_text), ks=(1, 2, 3)
    )
    own = [{j for j in range(6) if image_of_text[j] == i} for i in range(2)]
    for k in (1, 2, 3):
        hits = [over_all_orders(list(scores[i]), own[i], lambda p, k=k: p <= k) for i in range(2)]  # type: ignore[misc]
        assert found["image_to_text"][f"r{k}"] == pytest.approx(np.mean(hits), abs=1e-12)
    ranks = [over_all_orders(list(scores[i]), own[i], float) for i in range(2)]
    assert found["image_to_text"]["median_rank"] == pytest.approx(np.median(ranks), abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_the_order_of_images_and_captions_does_not_matter(levels: int | None) -> None:
    images, texts, image_of_text = random_pairs(0, levels=levels)
    found = retrieval_metrics(images, texts, image_of_text)
    random = torch.Generator().manual_seed(1)
    for _ in range(20):
        new = torch.randperm(len(images), generator=random)
        mixed = torch.randperm(len(texts), generator=random)
        again = retrieval_metrics(images[new], texts[mixed], new.argsort()[image_of_text[mixed]])
        for direction, figures in found.items():
            assert again[direction] == pytest.approx(figures, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2])
def test_the_chunk_does_not_matter(levels: int | None) -> None:
    pairs = random_pairs(3, levels=levels)
    whole = retrieval_metrics(*pairs, chunk=100)
    assert all(retrieval_metrics(*pairs, chunk=chunk) == whole for chunk in range(1, 9))


@pytest.mark.parametrize("copies", [2, 3])
def test_copies_of_a_caption_change_no_rank_of_an_image(copies: int) -> None:
    images, texts, owner = random_pairs(5)
    found = retrieval_metrics(images, texts, owner)["text_to_image"]
    more = retrieval_metrics(images, texts.repeat(copies, 1), owner.repeat(copies))
    assert more["text_to_image"] == pytest.approx(found, abs=1e-12)


def test_single_precision_finds_what_double_does() -> None:
    random, owner = torch.Generator().manual_seed(0), ragged(300)
    images = torch.randn(300, 32, generator=random, dtype=torch.float64)
    noise = torch.randn(len(owner), 32, generator=random, dtype=torch.float64)
    texts = images[owner] + 2 * noise
    double = retrieval_metrics(images, texts, owner)
    single = retrieval_metrics(images.float(), texts.float(), owner)
    for way in ("image_to_text", "text_to_image"):
        assert 0.2 < double[way]["r1"] < 0.9
        for k in (1, 5, 10):
            assert abs(single[way][f"r{k}"] - double[way][f"r{k}"]) <= 0.0002


def test_a_duplicated_image_shares_its_hits() -> None:
    images = torch.eye(3)[[0, 0, 2]]
    found = retrieval_metrics(images, torch.eye(3)[[0, 0, 2]], torch.arange(3))
    assert found["text_to_image"]["r1"] == pytest.approx((0.5 + 0.5 + 1) / 3)
    assert found["ties"] == {"image_to_text": 2, "text_to_image": 2}


def test_equal_own_captions_are_no_tie() -> None:
    found = retrieval_metrics(torch.eye(2), torch.eye(2)[[0, 0, 1]], torch.tensor([0, 0, 1]))
    assert found["image_to_text"]["r1"] == 1 and found["ties"]["image_to_text"] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"text embeddings must be fp32 or fp64, got {dtype}"):
        retrieval_metrics(torch.eye(2), torch.eye(2).to(dtype), torch.arange(2))


@pytest.mark.parametrize(
    ("image_of_text", "ks", "sentence"),
    [
        ([0, 0], (1,), "image 1 has no caption"),
        ([0, 2], (1,), r"belongs to image 2, out of 0\.\.1"),
        ([0, -1], (1,), "belongs to image -1"),
        ([0, 1], (0,), r"places from 1 on, got \[0\]"),
        ([0, 1], (), r"places from 1 on, got \[\]"),
    ],
)
def test_what_cannot_be_ranked_is_refused(
    image_of_text: list[int], ks: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        retrieval_metrics(torch.eye(2), torch.eye(2), torch.tensor(image_of_text), ks)


def test_broken_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match="image embeddings must be finite"):
        retrieval_metrics(torch.eye(2) * torch.nan, torch.eye(2), torch.arange(2))
    with pytest.raises(ValueError, match="at least 1 image, got 0"):
        retrieval_metrics(torch.zeros(0, 2), torch.zeros(0, 2), torch.arange(0))


def test_intervals_hold_the_recalls_and_narrow_with_more_images() -> None:
    widths = []
    for number in (50, 800):
        owner = ragged(number)
        images = torch.randn(number, 16)
        texts = images[owner] + 1.5 * torch.randn(len(owner), 16)
        found = retrieval_metrics(images, texts, owner, draws=200)
        for way, recalls in found["intervals"].items():
            for name, one in recalls.items():
                assert one["low"] <= found[way][name] <= one["high"]
        widths.append(found["intervals"]["text_to_image"]["r1"]["standard_error"])
    assert widths[0] > 2 * widths[1]

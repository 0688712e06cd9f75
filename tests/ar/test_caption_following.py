"""What the judges of generated images promise."""

import pytest
import torch
from torch import Tensor

from ar.evaluation import (
    SCENE_FEATURES,
    SceneJudge,
    Thing,
    accuracy,
    following,
    train_classifier,
    train_judge,
)
from data.scenes import COLOURS, SHAPES, load_scenes, numbered_scenes

RED_SQUARE, RED_RING, BLUE_RING = (1, 0, 4), (4, 0, 2), (4, 5, 8)  # shape, colour, place


def real_scenes(split: str, number: int, size: int = 24) -> tuple[Tensor, list[list[Thing]]]:
    images = load_scenes(split, number, size).images
    said = [
        [(SHAPES.index(o.shape), list(COLOURS).index(o.colour), o.place) for o in scene.objects]
        for _, scene in numbered_scenes(split, number)
    ]
    return torch.as_tensor(images), said


def test_an_image_that_shows_what_is_said_scores_one_in_any_order() -> None:
    scores = following([[RED_RING, BLUE_RING]], [[BLUE_RING, RED_RING]])
    assert scores == dict.fromkeys(("colour", "shape", "colour_and_shape", "place", "scene"), 1.0)


def test_swapped_colours_cost_the_pairs_but_not_the_colours() -> None:
    scores = following([[(1, 0, 4), (4, 5, 8)]], [[(1, 5, 4), (4, 0, 8)]])
    assert scores == {"colour": 1, "shape": 1, "colour_and_shape": 0, "place": 1, "scene": 0}


def test_swapped_places_cost_the_scene_alone() -> None:
    scores = following([[(1, 0, 4), (4, 5, 8)]], [[(1, 0, 8), (4, 5, 4)]])
    assert scores == {"colour": 1, "shape": 1, "colour_and_shape": 1, "place": 1, "scene": 0}


def test_what_was_not_said_costs_as_much_as_what_is_missing() -> None:
    for seen, said in (
        ([RED_SQUARE, BLUE_RING], [RED_SQUARE]),
        ([RED_SQUARE], [RED_SQUARE, BLUE_RING]),
    ):
        assert following([seen], [said]) == dict.fromkeys(
            ("colour", "shape", "colour_and_shape", "place"), 0.5
        ) | {"scene": 0.0}


def test_a_thing_said_twice_must_be_seen_twice() -> None:
    scores = following([[RED_RING, BLUE_RING]], [[RED_RING, RED_SQUARE]])
    assert scores == {
        "colour": 0.5,
        "shape": 0.5,
        "colour_and_shape": 0.5,
        "place": 0.5,
        "scene": 0,
    }


def test_an_image_of_nothing_scores_nothing_and_images_are_averaged() -> None:
    scores = following([[], [RED_RING]], [[RED_RING], [RED_RING]])
    assert set(scores.values()) == {0.5}


@pytest.mark.parametrize(
    ("seen", "said", "sentence"),
    [
        ([[RED_RING]], [], "got 1 and 0"),
        ([], [], "got 0 and 0"),
        ([[RED_RING]] * 2, [[RED_RING], []], "caption of image 1 says nothing"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    seen: list[list[Thing]], said: list[list[Thing]], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        following(seen, said)


def test_a_judge_learns_to_see_scenes() -> None:
    images, said = real_scenes("judge", 600)
    judge = train_judge(images, said, shapes=6, colours=8, steps=150, batch_size=32)
    fresh, truth = real_scenes("val", 100)
    scores = following(judge.see(fresh), truth)
    assert scores["place"] > 0.8 and scores["colour"] > 0.7  # a guess gets less than 0.3


def test_a_judge_looks_at_each_place_alone() -> None:
    judge = SceneJudge(shapes=6, colours=8)
    images = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    changed = images.clone()
    changed[..., :10, :10] = 0  # the top left
    same = (judge(images) - judge(changed)).abs().amax(dim=2)[0] < 1e-6
    assert same.tolist() == [False, False, True, False, False, True, True, True, True]


def test_places_are_read_from_what_a_judge_shows_as_features() -> None:
    judge = SceneJudge(shapes=6, colours=8)
    images = torch.randint(0, 256, (300, 3, 32, 32), dtype=torch.uint8)  # more than seen at once
    features = judge.features(images)
    assert features.shape == (300, SCENE_FEATURES)
    logits = judge(images).mean(dim=1)  # the last layer is linear, as is a mean
    torch.testing.assert_close(judge.net[-1](features), logits)


@pytest.mark.parametrize("size", [24, 32, 33, 48])
def test_a_window_has_its_object_in_the_middle(size: int) -> None:
    images, said = real_scenes("train", 8, size)
    windows = SceneJudge(shapes=6, colours=8)._windows(images.float())
    assert windows.shape[1:3] == (9, 3) and windows.shape[3] == round(14 / 32 * size)
    middle = windows[..., windows.shape[3] // 2, windows.shape[4] // 2]  # [N, P, 3]
    for index, things in enumerate(said):
        for shape, colour, place in things:
            if SHAPES[shape] in ("circle", "square"):  # the others may be open or thin there
                expected = torch.tensor(list(COLOURS.values())[colour])
                assert torch.equal(middle[index, place], expected.float())


def test_judges_of_one_seed_are_equal_and_leave_the_global_seed_alone() -> None:
    images, said = real_scenes("train", 8)
    state = torch.get_rng_state()
    first, again = (
        train_judge(images, said, shapes=6, colours=8, steps=2, batch_size=4) for _ in range(2)
    )
    assert torch.equal(first(images), again(images))
    assert torch.equal(torch.get_rng_state(), state)


def test_scenes_that_cannot_be_learned_are_refused() -> None:
    images, said = real_scenes("train", 2)
    with pytest.raises(ValueError, match="got 1 for 2"):
        train_judge(images, said[:1], shapes=6, colours=8)
    with pytest.raises(ValueError, match="scene 1 has shape 6, colour 0 and place 0, of 6 shapes"):
        train_judge(images, [said[0], [(6, 0, 0)]], shapes=6, colours=8)
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        train_judge(images, said, shapes=6, colours=8, steps=0)


def striped(number: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noise with level stripes (label 0) or upright ones (label 1), which mirroring keeps."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (number,), generator=random)
    stripes = (torch.arange(16) % 4 < 2).float() * 60
    patterns = torch.stack([stripes[:, None].expand(16, 16), stripes.expand(16, 16)])
    noise = torch.randint(0, 190, (number, 3, 16, 16), generator=random)
    return (noise + patterns[labels][:, None]).to(torch.uint8), labels


def test_a_classifier_learns_labels() -> None:
    classifier = train_classifier(*striped(200, 0), 2, steps=40, batch_size=16)
    assert accuracy(classifier, *striped(100, 1)) > 0.9


def test_the_chunk_does_not_change_the_accuracy() -> None:
    images, labels = striped(20, 0)
    classifier = train_classifier(images, labels, 2, steps=1, batch_size=4)
    whole = accuracy(classifier, images, labels)
    assert all(accuracy(classifier, images, labels, chunk=chunk) == whole for chunk in (1, 7))


def test_labels_and_modes_that_make_no_sense_are_refused() -> None:
    images, labels = striped(4, 0)
    with pytest.raises(ValueError, match=r"labels must lie in 0\.\.1, got 0\.\.2"):
        train_classifier(images, torch.tensor([0, 1, 2, 0]), 2)
    classifier = train_classifier(images, labels, 2, steps=1, batch_size=4)
    with pytest.raises(ValueError, match="needs a label, got 0 and 0"):
        accuracy(classifier, images[:0], labels[:0])
    with pytest.raises(ValueError, match="Classifier must be in eval mode"):
        accuracy(classifier.train(), images, labels)

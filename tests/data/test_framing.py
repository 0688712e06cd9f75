"""What framing promises: the same image in every run, another one every epoch."""

import numpy as np
import pytest

from data import Framing

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_without_augmentation_every_epoch_shows_the_centred_square() -> None:
    framing = Framing(size=40)
    for epoch in range(3):
        assert np.array_equal(framing.show(IMAGE, 0, epoch, 5), IMAGE[:, 10:50])


def test_a_framing_is_a_function_of_seed_epoch_and_index() -> None:
    framing = Framing(size=16, crop_area=0.3, mirrored=0.5)
    shown = framing.show(IMAGE, 1, 2, 3)
    assert shown.shape == (16, 16, 3) and np.array_equal(shown, framing.show(IMAGE, 1, 2, 3))
    for other in ((0, 2, 3), (1, 0, 3), (1, 2, 0)):
        assert not np.array_equal(shown, framing.show(IMAGE, *other))


def test_the_share_of_mirrored_images_is_the_one_asked_for() -> None:
    framing = Framing(size=40, mirrored=0.25)
    mirror = IMAGE[:, 10:50][:, ::-1]
    turned = sum(np.array_equal(framing.show(IMAGE, 0, 0, index), mirror) for index in range(1_000))
    assert 210 < turned < 290  # 3 standard deviations


def test_crops_keep_at_least_their_share_and_reach_every_corner() -> None:
    rows, columns = np.indices((300, 300))
    places = np.stack([rows // 2, columns // 2, rows * 0], axis=-1).astype(np.uint8)
    framing = Framing(size=64, crop_area=0.5)
    seen = np.array([framing.show(places, 0, 0, index).reshape(-1, 3) for index in range(200)])
    spans = (seen.max(1) - seen.min(1).astype(int))[:, :2].prod(1) / 149**2
    assert spans.min() > 0.47 and spans.max() > 0.9 and spans.std() > 0.1
    assert seen[..., :2].min() <= 2 and seen[..., :2].max() >= 147


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "image_size must be at least 1, got 0"),
        ({"size": 8, "crop_area": 0.0}, "crop_area must be above 0 and at most 1, got 0.0"),
        ({"size": 8, "mirrored": 1.1}, r"mirrored must lie in 0\.\.1, got 1\.1"),
    ],
)
def test_impossible_framings_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Framing(**options)

"""What counts as the same image, or nearly."""

import io
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from PIL import Image

from data import Alike, alike_among, alike_in, decode_image, similar
from data.images import resize
from data.scenes import render, scene
from data.similar import digest, thumbnail

LOOSE = Alike(correlation=0.9)


def photograph(seed: int, side: int = 96) -> UInt8[np.ndarray, "S S 3"]:
    """Soft blotches of every size: the statistics of a photograph."""
    random = np.random.default_rng(seed)
    image = sum(
        np.float32(resize(random.integers(0, 256, (n, n, 3), dtype=np.uint8), side, side)) / n
        for n in (2, 4, 8, 16, 32)
    )
    return (image / image.max() * 255).astype(np.uint8)


def encoded(image: UInt8[np.ndarray, "H W 3"], kind: str, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format=kind, quality=quality)
    return decode_image(file.getvalue())


def thumbnails(images: list[np.ndarray]) -> UInt8[np.ndarray, "N 16 16 3"]:
    return np.stack([thumbnail(image) for image in images])


def slow_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of all steps down and across, as plainly as it can be said."""

    def steps(cells: np.ndarray) -> np.ndarray:
        cells = cells.astype(float)
        return np.concatenate([np.diff(cells, axis=0).ravel(), np.diff(cells, axis=1).ravel()])

    a, b = steps(one), steps(other)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.mark.parametrize("alike", [LOOSE, Alike(correlation=0.9, difference=32)])
def test_another_size_or_quality_is_found_and_another_image_is_not(alike: Alike) -> None:
    images = [photograph(seed) for seed in range(12)]
    copies = [
        encoded(resize(image, 72, 72), "JPEG", 60)
        if number % 2
        else encoded(resize(image, 128, 100), "WEBP", 50)
        for number, image in enumerate(images)
    ]
    found = alike_in(thumbnails(images), thumbnails(copies[:6]), alike)
    assert found.tolist() == [0, 1, 2, 3, 4, 5, *[-1] * 6]


def test_it_is_what_comparing_one_by_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(similar, "BLOCK", 7)
    monkeypatch.setattr(similar, "CHECKED", 3)
    drawn = thumbnails([render(scene("train", index), 36) for index in range(40)])
    for alike in (Alike(correlation=0.2), Alike(correlation=0.2, difference=150)):
        is_alike = np.array(
            [
                [
                    slow_correlation(a, b) >= alike.correlation
                    and abs(a.astype(int) - b.astype(int)).max() <= alike.difference
                    for b in drawn
                ]
                for a in drawn
            ]
        )
        expected = [int(np.argmax(row)) if row.any() else -1 for row in is_alike[:, :17]]
        assert 0 < sum(place >= 0 for place in expected[17:]) < 23
        assert alike_in(drawn, drawn[:17], alike).tolist() == expected

        stay: list[int] = []
        first = []
        for place in range(len(drawn)):
            earlier = [each for each in stay if is_alike[place, each]]
            first.append(min(earlier, default=-1))
            if not earlier:
                stay.append(place)
        assert 0 < len(stay) < len(drawn)
        assert alike_among(drawn, alike).tolist() == first


def test_a_colour_or_a_detail_makes_another_drawing_where_a_difference_counts() -> None:
    white = np.full((64, 64, 3), 255, np.uint8)
    black, grey, spotted = (white.copy() for _ in range(3))
    black[8:56, 8:56], grey[8:56, 8:56], spotted[8:56, 8:56] = 0, 100, 0
    spotted[28:34, 28:34] = 255
    drawings = thumbnails([black, grey, spotted])
    assert alike_among(drawings, LOOSE).tolist() == [-1, 0, 0]
    assert alike_among(drawings, Alike(correlation=0.9, difference=32)).tolist() == [-1, -1, -1]


def test_images_of_one_colour_are_like_none() -> None:
    assert alike_among(np.full((3, 16, 16, 3), 255, np.uint8), LOOSE).tolist() == [-1, -1, -1]


def test_equal_pixels_have_one_digest_whatever_file_they_came_from() -> None:
    image = photograph(0)
    assert digest(encoded(image, "PNG", 0)) == digest(image)
    assert digest(image[::-1]) != digest(image)
    assert digest(image.reshape(48, 192, 3)) != digest(image)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"correlation": 0.0}, "correlation must be above 0 and at most 1, got 0"),
        ({"correlation": float("nan")}, "correlation must be above 0 and at most 1, got nan"),
        ({"correlation": 1.0, "difference": 256}, "difference must lie in 0..255, got 256"),
    ],
)
def test_what_cannot_be_asked_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Alike(**options)

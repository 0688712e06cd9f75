"""Sheets of images: what is drawn where, and that no caption is wider than its image."""

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.engine import sheets
from recipes.engine.sheets import captioned_grid, prefix_strips, strips


def flat_images(*levels: int, side: int = 32) -> np.ndarray:
    """One even image for each level of grey."""
    grey = np.array(levels, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return np.broadcast_to(grey, (len(levels), 3, side, side)).copy()


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def pixels_of(path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def strip_size(rows: int, columns: int) -> tuple[int, int]:
    step = 128 + sheets.GAP
    frame, title = 2 * sheets.MARGIN - sheets.GAP, sheets.TEXT_LINE + sheets.GAP // 2
    return columns * step + frame, rows * step + frame + title


def test_a_strip_has_a_row_for_each_image_and_a_column_for_each_prefix(tmp_path):
    images = flat_images(10, 100, 200)
    rebuilt = {1: images, 2: images, 4: images}
    prefix_strips(images, rebuilt, tmp_path / "with.png")
    assert size_of(tmp_path / "with.png") == strip_size(rows=3, columns=4)


def test_a_strip_goes_from_the_shortest_prefix_to_the_original(tmp_path):
    rebuilt = {4: flat_images(40), 1: flat_images(10), 2: flat_images(20)}
    prefix_strips(flat_images(99), rebuilt, tmp_path / "a.png")
    middle = pixels_of(tmp_path / "a.png")[-sheets.MARGIN - 64, :, 0]
    centres = sheets.MARGIN + 64 + (128 + sheets.GAP) * np.arange(4)
    assert middle[centres].tolist() == [10, 20, 40, 99]


def test_an_enlarged_image_has_the_pixels_of_the_small_one():
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    enlarged = np.asarray(sheets._enlarged(image.numpy(), 128))
    assert enlarged.shape == (128, 128, 3)
    blocks = enlarged.reshape(32, 4, 32, 4, 3)
    assert (blocks == image.numpy().transpose(1, 2, 0)[:, None, :, None]).all()


def test_strips_of_prefixes_are_strips(tmp_path):
    images = flat_images(10, 200)
    prefix_strips(images, {1: images}, tmp_path / "prefixes.png")
    strips({"1 token": images, "original": images}, tmp_path / "strips.png")
    assert (tmp_path / "prefixes.png").read_bytes() == (tmp_path / "strips.png").read_bytes()
    with pytest.raises(ValueError, match="strips must have at least 1 column, got 0"):
        strips({}, tmp_path / "none.png")


def test_an_image_larger_than_its_cell_keeps_every_pixel():
    assert sheets._enlarged(flat_images(0, side=300)[0], 128).size == (300, 300)


def test_tensors_are_drawn_like_arrays(tmp_path):
    images = flat_images(10, 200)
    captioned_grid(images, ["a", "b"], tmp_path / "array.png")
    captioned_grid(torch.from_numpy(images), ["a", "b"], tmp_path / "tensor.png")
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "tensor.png").read_bytes()


def test_a_grid_holds_every_image_with_ink_below_it(tmp_path):
    captioned_grid(flat_images(50, 60, 70, 80, 90), list("abcde"), tmp_path / "a.png", columns=2)
    drawn = pixels_of(tmp_path / "a.png")
    side, step = 192, 192 + 2 * sheets.GAP
    down = side + 3 * sheets.GAP + sheets.TEXT_LINE
    for index, level in enumerate((50, 60, 70, 80, 90)):
        top = sheets.MARGIN + index // 2 * down
        left = sheets.MARGIN + index % 2 * step
        assert (drawn[top : top + side, left : left + side] == level).all()
        below = drawn[top + side : top + side + sheets.GAP + sheets.TEXT_LINE]
        assert below[:, left : left + side].min() < 100


@pytest.mark.parametrize(
    "caption",
    ["a red ring", "W" * 300, "word " * 500, "\0 \x1b[31m\nred \ud800 école", "$x^2$ <b>", ""],
)
def test_no_line_of_a_caption_is_wider_than_its_image(caption):
    lines = sheets._wrapped(caption, 192)
    assert len(lines) <= sheets.CAPTION_LINES
    assert all(sheets._font().getlength(line) <= 192 for line in lines)


def test_a_caption_that_fits_loses_no_word():
    caption = "a small red circle at the top left and a large blue moon at the bottom"
    lines = sheets._wrapped(caption, 192)
    assert len(lines) > 1 and " ".join(lines) == caption


def test_a_caption_that_does_not_fit_ends_in_an_ellipsis():
    lines = sheets._wrapped("word " * 500, 192)
    assert len(lines) == sheets.CAPTION_LINES and lines[-1].endswith("…")


def test_any_caption_can_be_drawn(tmp_path):
    captions = ["", "\0\n\ud800", "猫 🙂", "word " * 1000]
    captioned_grid(flat_images(0, 0, 0, 0), captions, tmp_path / "a.png")
    assert size_of(tmp_path / "a.png")[0] == 4 * 192 + 6 * sheets.GAP + 2 * sheets.MARGIN


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (flat_images(0).astype(np.float32), "images must be uint8, got float32"),
        (np.zeros((2, 32, 32, 3), np.uint8), r"shape \[N, 3, S, S\], got \[2, 32, 32, 3\]"),
        (np.zeros((2, 3, 32, 16), np.uint8), r"shape \[N, 3, S, S\], got \[2, 3, 32, 16\]"),
        (np.zeros((0, 3, 8, 8), np.uint8), r"shape \[N, 3, S, S\], got \[0, 3, 8, 8\]"),
    ],
)
def test_other_images_are_refused(images, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        prefix_strips(images, {1: images}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=sentence):
        captioned_grid(images, ["a"] * len(images), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_strip_of_nothing_or_of_uneven_columns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1 prefix, got 0"):
        prefix_strips(flat_images(0), {}, tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"one shape, got \[\(1, 3, 32, 32\), \(2, 3, 32, 32\)\]"):
        prefix_strips(flat_images(0), {1: flat_images(0, 0)}, tmp_path / "a.png")


def test_a_grid_with_a_caption_missing_or_no_columns_is_refused(tmp_path):
    with pytest.raises(ValueError, match="each image needs a caption, got 1 for 2"):
        captioned_grid(flat_images(0, 0), ["a"], tmp_path / "a.png")
    with pytest.raises(ValueError, match="columns must be at least 1, got 0"):
        captioned_grid(flat_images(0), ["a"], tmp_path / "a.png", columns=0)

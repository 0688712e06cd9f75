import math

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.engine import pictures
from recipes.engine.pictures import (
    captioned_grid,
    curves,
    gain_maps,
    loss_curves,
    paths,
    prefix_strips,
    strips,
)

LOSSES = [{"step": step, "loss": 2.0 / (step + 1), "seconds": 1.0} for step in range(30)]


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
    step = 128 + pictures.GAP
    frame, title = 2 * pictures.MARGIN - pictures.GAP, pictures.TEXT_LINE + pictures.GAP // 2
    return columns * step + frame, rows * step + frame + title


def test_a_strip_has_a_row_for_each_image_and_a_column_for_each_prefix(tmp_path):
    images = flat_images(10, 100, 200)
    rebuilt = {1: images, 2: images, 4: images}
    prefix_strips(images, rebuilt, tmp_path / "with.png")
    prefix_strips(None, rebuilt, tmp_path / "without.png")
    assert size_of(tmp_path / "with.png") == strip_size(rows=3, columns=4)
    assert size_of(tmp_path / "without.png") == strip_size(rows=3, columns=3)


def test_a_strip_goes_from_the_shortest_prefix_to_the_original(tmp_path):
    rebuilt = {4: flat_images(40), 1: flat_images(10), 2: flat_images(20)}
    prefix_strips(flat_images(99), rebuilt, tmp_path / "a.png")
    middle = pixels_of(tmp_path / "a.png")[-pictures.MARGIN - 64, :, 0]
    centres = pictures.MARGIN + 64 + (128 + pictures.GAP) * np.arange(4)
    assert middle[centres].tolist() == [10, 20, 40, 99]


def test_an_enlarged_image_has_the_pixels_of_the_small_one():
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=torch.manual_seed(0))
    enlarged = np.asarray(pictures._enlarged(image.numpy(), 128))
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
    assert pictures._enlarged(flat_images(0, side=300)[0], 128).size == (300, 300)


def test_tensors_are_drawn_like_arrays(tmp_path):
    images = flat_images(10, 200)
    captioned_grid(images, ["a", "b"], tmp_path / "array.png")
    captioned_grid(torch.from_numpy(images), ["a", "b"], tmp_path / "tensor.png")
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "tensor.png").read_bytes()


def test_a_grid_holds_every_image_with_ink_below_it(tmp_path):
    captioned_grid(flat_images(50, 60, 70, 80, 90), list("abcde"), tmp_path / "a.png", columns=2)
    drawn = pixels_of(tmp_path / "a.png")
    side, step = 192, 192 + 2 * pictures.GAP
    down = side + 3 * pictures.GAP + pictures.TEXT_LINE
    for index, level in enumerate((50, 60, 70, 80, 90)):
        top = pictures.MARGIN + index // 2 * down
        left = pictures.MARGIN + index % 2 * step
        assert (drawn[top : top + side, left : left + side] == level).all()
        below = drawn[top + side : top + side + pictures.GAP + pictures.TEXT_LINE]
        assert below[:, left : left + side].min() < 100


@pytest.mark.parametrize(
    "caption",
    ["a red ring", "W" * 300, "word " * 500, "\0 \x1b[31m\nred \ud800 école", "$x^2$ <b>", ""],
)
def test_no_line_of_a_caption_is_wider_than_its_image(caption):
    lines = pictures._wrapped(caption, 192)
    assert len(lines) <= pictures.CAPTION_LINES
    assert all(pictures._font().getlength(line) <= 192 for line in lines)


def test_a_caption_that_fits_loses_no_word():
    caption = "a small red circle at the top left and a large blue moon at the bottom"
    lines = pictures._wrapped(caption, 192)
    assert len(lines) > 1 and " ".join(lines) == caption


def test_a_caption_that_does_not_fit_ends_in_an_ellipsis():
    lines = pictures._wrapped("word " * 500, 192)
    assert len(lines) == pictures.CAPTION_LINES and lines[-1].endswith("…")


def test_any_caption_can_be_drawn(tmp_path):
    captions = ["", "\0\n\ud800", "猫 🙂", "word " * 1000]
    captioned_grid(flat_images(0, 0, 0, 0), captions, tmp_path / "a.png")
    assert size_of(tmp_path / "a.png")[0] == 4 * 192 + 6 * pictures.GAP + 2 * pictures.MARGIN


@pytest.mark.parametrize("log2_x", [True, False])
def test_curves_are_one_picture(log2_x, tmp_path):
    series = {"image to text": {1: 0.5, 2: 0.75, 16: 1.0}, "$text^ to {image": {1: 0.25}}
    curves(series, tmp_path / "a.png", x_label="tokens", y_label="R@1", log2_x=log2_x)
    assert size_of(tmp_path / "a.png") == (960, 570)


def test_a_path_over_a_grid_is_drawn_and_one_that_leaves_a_cell_out_is_refused(tmp_path):
    paths({"z": np.array([0, 1, 2, 3]), "u": np.array([0, 2, 3, 1])}, tmp_path / "two.png")
    width, height = size_of(tmp_path / "two.png")
    assert width > height
    for cells in ([0, 1, 1, 3], [0, 1, 2]):
        with pytest.raises(ValueError, match="the path z must visit every cell of a square once"):
            paths({"z": np.array(cells)}, tmp_path / "none.png")


def test_every_loss_of_every_stage_has_a_panel(tmp_path):
    more = [line | {"first_token": 1.0, "last_token": -1.0} for line in LOSSES]
    loss_curves({"orderer": LOSSES}, tmp_path / "one.png")
    loss_curves({"orderer": LOSSES, "ar": more}, tmp_path / "two.png")
    one, two = size_of(tmp_path / "one.png"), size_of(tmp_path / "two.png")
    assert two[0] == round(3 * 2.3 * 150) and two[1] > 1.8 * one[1]
    assert pictures._loss_names("ar", more) == ["loss", "first_token", "last_token"]


def test_a_null_in_a_log_leaves_a_gap(tmp_path):
    loss_curves({"ar": [*LOSSES, {"step": 30, "loss": None}]}, tmp_path / "a.png")
    means = pictures._running_mean(np.array([math.nan, *[3.0] * 40, math.nan]))
    assert (means == 3.0).all()


def test_a_running_mean_of_few_values_is_the_values():
    values = np.array([1.0, math.nan, 5.0])
    np.testing.assert_array_equal(pictures._running_mean(values), values)


def test_a_running_mean_shifts_no_slope():
    slope = np.arange(20.0)
    np.testing.assert_allclose(pictures._running_mean(slope)[1:-1], slope[1:-1])


def test_a_training_of_one_step_can_be_drawn(tmp_path):
    loss_curves({"ar": LOSSES[:1]}, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize("tokens", [1, 8, 16])
def test_each_token_has_a_map(tokens, tmp_path, monkeypatch):
    drawn = []
    original = pictures._draw_gain
    monkeypatch.setattr(
        pictures, "_draw_gain", lambda axes, k, gain: (drawn.append(k), original(axes, k, gain))
    )
    gain_maps(torch.randn(tokens, 8, 8, generator=torch.manual_seed(0)), tmp_path / "a.png")
    assert drawn == list(range(1, tokens + 1))
    assert size_of(tmp_path / "a.png")[0] == round(max(1.15 * min(tokens, 8), 3.2) * 150)


def test_a_token_that_changes_nothing_can_be_drawn(tmp_path):
    gain_maps(np.zeros((2, 4, 4)), tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


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
        prefix_strips(None, {1: images}, tmp_path / "a.png")
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


@pytest.mark.parametrize(
    ("series", "sentence"),
    [
        ({}, "at least 1 line, got 0"),
        ({"a": {}}, "the line 'a' has no points"),
        ({"a": {1: 0.5, 2: math.nan}}, "the line 'a' must be finite, at 2 it is nan"),
        ({"a": {0: 0.5}}, "the line 'a' must start at 1 or later, got 0"),
    ],
)
def test_curves_that_cannot_be_drawn_are_refused(series, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        curves(series, tmp_path / "a.png", x_label="x", y_label="y", log2_x=True)


@pytest.mark.parametrize(
    ("logs", "sentence"),
    [
        ({}, "at least 1 stage, got 0"),
        ({"ar": []}, "the log of stage 'ar' holds no loss, lines: 0"),
        ({"ar": [{"step": 0, "loss": None}]}, "the log of stage 'ar' holds no loss, lines: 1"),
    ],
)
def test_logs_without_a_loss_are_refused(logs, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        loss_curves(logs, tmp_path / "a.png")


def test_gain_maps_that_are_not_square_or_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"shape \[K, S, S\], got \[4, 8, 6\]"):
        gain_maps(np.zeros((4, 8, 6)), tmp_path / "a.png")
    gains = np.zeros((4, 8, 8))
    gains[2, 0, 0] = math.inf
    with pytest.raises(ValueError, match="must be finite, that of token 3 is not"):
        gain_maps(gains, tmp_path / "a.png")

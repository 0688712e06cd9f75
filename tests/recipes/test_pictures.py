import math

import numpy as np
import pytest
import torch
from PIL import Image

from recipes.engine import pictures
from recipes.engine.pictures import (
    curves,
    gain_maps,
    loss_curves,
    paths,
)

LOSSES = [{"step": step, "loss": 2.0 / (step + 1), "seconds": 1.0} for step in range(30)]


def size_of(path) -> tuple[int, int]:
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


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

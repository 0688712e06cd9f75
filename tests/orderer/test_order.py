"""What the measures of the tokens' order promise."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from orderer.evaluation import gain_maps, raster_leak
from orderer.evaluation.order import rank_correlation, scans

SIDE, CELLS = 8, 4


def random_images(number: int = 200) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, SIDE, SIDE), dtype=torch.uint8, generator=random)


def cell_by_cell(images: Tensor, order: Tensor) -> list[Tensor]:
    """Rebuild grey images one true cell after another; `order` is each cell's rank."""
    rank = order.view(1, 1, CELLS, CELLS).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    grey = torch.full_like(images, 128)
    return [torch.where(rank <= k, images, grey) for k in range(CELLS**2)]


def coarse_to_fine(images: Tensor) -> list[Tensor]:
    """Rebuild images from their mean over ever smaller squares."""
    means = [torch.nn.functional.avg_pool2d(images.float(), SIDE // n) for n in (1, 2, 4, 8)]
    return [
        m.repeat_interleave(SIDE // m.shape[2], 2).repeat_interleave(SIDE // m.shape[3], 3).byte()
        for m in means
    ]


def test_the_gains_add_up_to_the_error_that_is_gone() -> None:
    images = random_images()
    rebuilt_at = [images // 4 * 2, images // 2 * 2, images]
    maps = gain_maps(images, rebuilt_at)
    variance = (images.double() / 255).var(dim=0, correction=0).mean(dim=0)
    assert maps.shape == (3, SIDE, SIDE)
    assert torch.allclose(maps.sum(dim=0), variance, atol=1e-9)


def test_a_token_gains_where_it_draws_and_nowhere_else() -> None:
    images = random_images()
    drawn = images.clone()
    drawn[:, :, 4:] = 0
    both = gain_maps(images, [drawn, images])[1]
    assert bool((both[:4] == 0).all()) and bool((both[4:] > 0).all())


@pytest.mark.parametrize("name", ["row", "column", "snake", "spiral"])
def test_a_raster_is_found_by_its_name(name: str) -> None:
    images = random_images()
    maps = gain_maps(images, cell_by_cell(images, scans(CELLS)[name]))
    leak = raster_leak(maps, CELLS)
    assert leak[name] == pytest.approx(1) and leak["largest"] == pytest.approx(1)
    assert leak["tokens"] == CELLS**2


def test_a_raster_backwards_leaks_as_much() -> None:
    images = random_images()
    maps = gain_maps(images, cell_by_cell(images, 15 - scans(CELLS)["row"]))
    assert raster_leak(maps, CELLS)["row"] == pytest.approx(-1)
    assert raster_leak(maps, CELLS)["largest"] == pytest.approx(1)


def test_coarse_to_fine_is_no_raster() -> None:
    images = random_images(25)
    images = torch.cat([images, images.flip(3)])
    images = torch.cat([images.rot90(turns, (2, 3)) for turns in range(4)])  # no side is special
    leak = raster_leak(gain_maps(images, coarse_to_fine(images)), CELLS)
    assert leak["row"] == leak["column"] == leak["snake"] == 0
    assert leak["largest"] < 0.6


def test_tokens_that_improve_all_alike_have_no_order() -> None:
    leak = raster_leak(torch.rand(16, 1, 1).expand(-1, SIDE, SIDE), CELLS)
    assert leak == dict.fromkeys(("row", "column", "snake", "spiral", "largest"), 0.0) | {
        "tokens": 16
    }


def test_a_token_that_improves_nothing_is_left_out() -> None:
    maps = torch.eye(CELLS**2).view(-1, CELLS, CELLS)
    with_idle = torch.cat([maps[:5], -maps[:3], maps[5:]])
    assert raster_leak(with_idle, CELLS) == raster_leak(maps, CELLS)
    assert raster_leak(-maps, CELLS)["tokens"] == 0


def test_each_scan_visits_the_cells_in_its_order() -> None:
    expected = {
        "row": [0, 1, 2, 3, 4, 5, 6, 7, 8],
        "column": [0, 3, 6, 1, 4, 7, 2, 5, 8],
        "snake": [0, 1, 2, 5, 4, 3, 6, 7, 8],
        "spiral": [0, 1, 2, 7, 8, 3, 6, 5, 4],
    }
    assert {name: rank.tolist() for name, rank in scans(3).items()} == expected


@pytest.mark.parametrize("levels", [1000, 4])
def test_the_rank_correlation_is_that_of_scipy(levels: int) -> None:
    random = torch.Generator().manual_seed(levels)
    for _ in range(10):
        a, b = torch.randint(levels, (2, 16), generator=random).double()
        assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_too_few_images_are_refused() -> None:
    images = random_images(199)
    with pytest.raises(ValueError, match="at least 200 images, got 199"):
        gain_maps(images, [images])
    assert gain_maps(images, [images], least=100).shape == (1, SIDE, SIDE)


def test_no_token_and_cells_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 token"):
        gain_maps(random_images(), [])
    with pytest.raises(ValueError, match="divide the 8 pixels, got 3"):
        raster_leak(torch.zeros(2, SIDE, SIDE), 3)

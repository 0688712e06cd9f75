"""Attribution: the Jacobian's shares, and nothing of what does not matter."""

import pytest
import torch

from orderer import Orderer
from orderer.evaluation import attribution_maps


def test_the_shares_are_those_of_the_jacobian(tiny_orderer: Orderer) -> None:
    image = torch.rand(1, 3, 16, 16) * 2 - 1
    jacobian = torch.autograd.functional.jacobian(tiny_orderer.encode, image)[0, :, :, 0]
    squares = jacobian.square().sum(dim=(1, 2))  # [K, H, W], over channels and colours
    exact = torch.nn.functional.avg_pool2d(squares, 4)
    exact = exact / exact.sum(dim=(1, 2), keepdim=True)
    found = attribution_maps(tiny_orderer, image, 200, torch.Generator().manual_seed(0))[0]
    assert found.shape == (4, 4, 4)
    torch.testing.assert_close(found, exact, atol=0.01, rtol=0.15)


def test_shares_sum_to_one_and_pixels_may_be_whole_numbers(tiny_orderer: Orderer) -> None:
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8)
    maps = attribution_maps(tiny_orderer, images, 1)
    assert maps.shape == (2, 4, 4, 6)
    torch.testing.assert_close(maps.sum(dim=(2, 3)), torch.ones(2, 4))


def test_a_patch_that_is_not_read_has_no_share(tiny_orderer: Orderer) -> None:
    with torch.no_grad():  # only the mixing is left, and it leaves out the first patch
        for block in tiny_orderer.encoder.blocks:
            block.attention.out.weight.zero_()
        tiny_orderer.encoder.mixing.weight[:, 0] = 0
    maps = attribution_maps(tiny_orderer, torch.rand(1, 3, 16, 16), 2)
    assert maps[0, :, 0, 0].abs().max() == 0 and maps[0, :, 1, 1].min() > 0


def test_no_draw_is_refused(tiny_orderer: Orderer) -> None:
    with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
        attribution_maps(tiny_orderer, torch.rand(1, 3, 16, 16), 0)


def test_whole_numbers_of_another_kind_are_refused(tiny_orderer: Orderer) -> None:
    with pytest.raises(ValueError, match=r"pixels must be uint8 .* got torch.int64"):
        attribution_maps(tiny_orderer, torch.zeros(1, 3, 16, 16, dtype=torch.long))

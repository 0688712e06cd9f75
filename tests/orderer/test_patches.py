"""Patches lose nothing."""

import pytest
import torch

from orderer.patches import patchify, unpatchify


@pytest.mark.parametrize("size", [(8, 8), (8, 12), (12, 4)])
def test_unpatchify_undoes_patchify(size: tuple[int, int]) -> None:
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    assert torch.equal(unpatchify(patchify(images, 4), 4, rows=size[0] // 4), images)


def test_a_patch_is_a_square_of_the_image() -> None:
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(patchify(images, 4)[0, 1], images[0, :, :4, 4:].flatten())


def test_a_patch_that_does_not_tile_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 3 do not tile an image of 8 x 8"):
        patchify(torch.zeros(1, 3, 8, 8), 3)

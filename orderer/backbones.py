"""Features by vision towers of open_clip or transformers, one vector for each of their patches.

B batch   H, W image height and width   N patches   F channels of a feature   M positions of a tower
h, w rows and columns

What such a tower makes of a whole image (class and register tokens, pooling, projection) is left
out. Images of another size than the tower was made for have its positions resampled, where it has
positions of that kind.
"""

import inspect
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from . import open_clip_towers, transformers_towers
from .borrowed import Borrowed
from .layers import portable_attention
from .positions import Grid, resampled
from .saved import read_pixels

OF_NO_PATCH = {"cls_token", "class_embedding", "distillation_token", "register_tokens"}
"""Parameters of transformers' towers that are states of no patch, and come before the patches."""


class Backbone(Borrowed):
    """What all have in common: pixels as the tower knows them, and a grid that must come out."""

    channels: int
    stride: int
    """Pixels from one patch to the next."""
    others: int = 0
    """States of no patch, which come first."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        said = {"image_mean": settings["mean"], "image_std": settings["std"]}
        pixels = read_pixels(said, "the architecture of a tower")
        self.mean, self.std = pixels["mean"], pixels["std"]

    def grid(self, height: int, width: int) -> Grid:
        """Rows and columns of the features of an image of this size in pixels.

        Raises:
            ValueError: for a size that the tower's patches do not tile.
        """
        if height % self.stride or width % self.stride or min(height, width) < self.stride:
            raise ValueError(
                f"the features' tower reads images in multiples of {self.stride} pixels, "
                f"got {height} x {width}"
            )
        return height // self.stride, width // self.stride

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N F"]:
        """Make features of images with values in [-1, 1]."""
        rows, columns = self.grid(*images.shape[2:])
        mean, std = (images.new_tensor(each)[:, None, None] for each in (self.mean, self.std))
        with self.graph(images), portable_attention(images.device):
            states = self.states(((images + 1) / 2 - mean) / std)
        return self._of_patches(states, (rows, columns))

    def _of_patches(self, states: Tensor, grid: Grid) -> Float[Tensor, "B N F"]:
        """Leave out states of no patch; any other number of states would be of other patches."""
        number = math.prod(grid)
        if states.ndim == 4:
            _refuse_other_grid(tuple(states.shape[2:]), grid)
            states = rearrange(states, "b f h w -> b (h w) f")
        elif states.shape[1] != number + self.others:
            raise ValueError(
                f"the features' tower gives {states.shape[1]} vectors, where {number} patches and "
                f"{self.others} tokens of no patch make {number + self.others}"
            )
        if states.shape[2] != self.channels:
            raise ValueError(
                f"the features' tower gives vectors of {states.shape[2]} channels, its settings "
                f"say {self.channels}"
            )
        return states[:, -number:]

    @abstractmethod
    def states(self, pixels: Float[Tensor, "B 3 H W"]) -> Tensor:
        """The tower's last states, [B, tokens, F] or [B, F, h, w]."""


class OpenClipFeatures(Backbone):
    """Any vision tower of open_clip, after its last norm where that is one of patches."""

    def __init__(self, settings: Mapping[str, Any], trained: bool) -> None:
        super().__init__(settings)
        self.dense = _Dense(open_clip_towers.build(settings, "image"))
        self.image_size = _pair(self.dense.tower.image_size)
        self.stride, self.channels = _measures(self.dense.tower)
        self.borrow(trained)

    def start_from(self, settings: Mapping[str, Any], path: Path) -> None:
        """Take the weights from a file."""
        started = _Dense(open_clip_towers.load(settings, "image", path))
        self.dense.load_state_dict(started.state_dict())

    def states(self, pixels: Float[Tensor, "B 3 H W"]) -> Tensor:
        size = tuple(pixels.shape[2:])
        positions = getattr(self.dense.tower, "positional_embedding", None)
        if size == self.image_size or _is_convolutional(self.dense.tower):
            return self.dense(pixels)
        if positions is None:
            raise ValueError(
                f"the features' tower reads images of {self.image_size[0]} x {self.image_size[1]} "
                f"pixels only, got {size[0]} x {size[1]}"
            )
        moved = resampled(positions[1:], self.grid(*self.image_size), self.grid(*size))
        moved = torch.cat([positions[:1], moved])  # [1 + N, M]
        return functional_call(self.dense, {"tower.positional_embedding": moved}, pixels)


class _Dense(nn.Module):
    """A tower of open_clip, without what it does with a whole image."""

    tower: Any

    def __init__(self, tower: Any) -> None:
        super().__init__()
        self.tower = tower
        self.normalised = getattr(tower, "attn_pool", None) is None
        for name in ("proj", "attn_pool", "attn_pool_contrastive", "attnpool"):
            if getattr(tower, name, None) is not None:
                setattr(tower, name, None)
        if not self.normalised:
            tower.ln_post = nn.Identity()  # it normalises what was pooled
        if hasattr(tower, "trunk"):
            tower.head = nn.Identity()
            tower.trunk.reset_classifier(0, global_pool="")
        for module in tower.modules():  # transformers, loading a model, would lose them
            module._non_persistent_buffers_set.clear()

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Tensor:
        made = self.tower.forward_intermediates(
            pixels,
            indices=1,
            normalize_intermediates=self.normalised,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return made["image_intermediates"][-1]


def _measures(tower: Any) -> tuple[int, int]:
    """Stride and channels."""
    if hasattr(tower, "trunk"):  # timm's
        return tower.trunk.feature_info[-1]["reduction"], tower.trunk.num_features
    if hasattr(tower, "layer4"):  # CLIP's ResNet
        return 32, tower.layer4[-1].bn3.num_features
    return tower.patch_size[0], tower.conv1.out_channels


def _is_convolutional(tower: Any) -> bool:
    return hasattr(tower, "layer4") or (
        hasattr(tower, "trunk") and not hasattr(tower.trunk, "patch_embed")
    )


class TransformersFeatures(Backbone):
    """The last hidden states of any vision model of transformers."""

    def __init__(self, settings: Mapping[str, Any], trained: bool) -> None:
        super().__init__(settings)
        self.network = transformers_towers.build(settings, "image")
        config = self.network.config
        if getattr(config, "mask_ratio", None) is not None:
            raise ValueError(
                "the features' tower must read all patches in their order, a "
                f"{config.model_type} model has a mask_ratio of {config.mask_ratio}"
            )
        self.others = _of_no_patch(self.network)
        self.stride, self.channels = _stride(config), _channels(config)
        self.interpolates = "interpolate_pos_encoding" in _arguments(self.network)
        self.in_patches = "spatial_shapes" in _arguments(self.network)
        self.borrow(trained)

    def start_from(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Take the weights from a folder."""
        started = transformers_towers.load(settings, "image", folder)
        self.network.load_state_dict(started.state_dict())

    def states(self, pixels: Float[Tensor, "B 3 H W"]) -> Tensor:
        if self.in_patches:
            return self._states_of_patches(pixels)
        size = _pair(pixels.shape[2:])
        made_for = _pair(getattr(self.network.config, "image_size", None) or size)
        is_other = size != made_for
        options = {"interpolate_pos_encoding": True} if is_other and self.interpolates else {}
        try:
            return self.network(pixel_values=pixels, **options).last_hidden_state
        except (ValueError, RuntimeError) as error:
            if not is_other or self.interpolates:
                raise
            raise ValueError(
                f"the features' tower reads images of {made_for[0]} x {made_for[1]} pixels only, "
                f"got {size[0]} x {size[1]}"
            ) from error

    def _states_of_patches(self, pixels: Float[Tensor, "B 3 H W"]) -> Tensor:
        """SigLIP 2 takes patches, colours last, and is told their grid."""
        grid = self.grid(*pixels.shape[2:])
        patches = rearrange(pixels, "b c (h p) (w q) -> b (h w) (p q c)", h=grid[0], w=grid[1])
        return self.network(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(patches.shape[:2], device=pixels.device).long(),
            spatial_shapes=torch.tensor([grid] * len(pixels), device=pixels.device),
        ).last_hidden_state


def _refuse_other_grid(found: tuple[int, ...], grid: Grid) -> None:
    if found != grid:
        raise ValueError(
            f"the features' tower gives a grid of {found[0]} x {found[1]}, where its settings say "
            f"{grid[0]} x {grid[1]}"
        )


def _of_no_patch(network: nn.Module) -> int:
    """How many states are of no patch."""
    return sum(
        math.prod(parameter.shape[:-1])
        for name, parameter in network.named_parameters()
        if name.rpartition(".")[2] in OF_NO_PATCH
    )


def _arguments(network: nn.Module) -> set[str]:
    return set(inspect.signature(network.forward).parameters)


def _stride(config: Any) -> int:
    """That of the patches, doubled at each stage where there are several."""
    patch = _pair(getattr(config, "patch_size", 4))[0]
    return patch * 2 ** (len(getattr(config, "depths", [1])) - 1)


def _channels(config: Any) -> int:
    sizes = getattr(config, "hidden_sizes", None)
    return sizes[-1] if sizes else config.hidden_size


def _pair(side: int | Sequence[int]) -> tuple[int, int]:
    return (side, side) if isinstance(side, int) else (side[0], side[1])

"""From the cells of an image to a sequence of tokens, and back: one class for each idea.

    B batch   N cells, s on a side   C components of a cell   K tokens   D channels of a token
    k tokens that are there   S image side

What is missing of a sequence is taken for 0, the mean of the patches.
"""

import zlib
from abc import ABC, abstractmethod

import torch
from einops import rearrange
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from .config import SequenceConfig
from .paths import PATHS, shuffled

LEAST_LOG_SNR, MOST_LOG_SNR = -4.0, 8.0
"""Of the first and the last token of `noise`, for patches of a deviation of 1."""


class Arrangement(ABC):
    """Patches to tokens and back."""

    @abstractmethod
    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        """The tokens of images, all of them."""

    @abstractmethod
    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        """What the first k tokens say of its patches."""


def make_arrangement(config: SequenceConfig) -> Arrangement:
    """The arrangement that a configuration names."""
    match config.order:
        case "scales":
            return Scales(config.side)
        case "depth":
            return Depth(config.side**2)
        case "principal":
            return Spectrum(config.tokens)
        case "noise":
            return Noise(config.side**2, config.levels, config.draw)
        case "shuffled":
            return Along(shuffled(config.side, config.draw))
    return Along(PATHS[config.order](config.side))


class Along(Arrangement):
    """Every patch is a token, and a path says which comes next."""

    def __init__(self, path: Int[Tensor, "N"]) -> None:
        self.path, self.place = path, path.argsort()

    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        return patches[:, self.path.to(patches.device)]

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        whole = filled(tokens, len(self.path))
        return whole[:, self.place.to(tokens.device)]


class Scales(Arrangement):
    """Averages over ever smaller squares, each of what the larger ones left.

    There are more numbers than in the patches, by a third.

    Source: Tian et al. 2024, "Visual Autoregressive Modeling", section 3.2, without its codes and
    convolutions, https://arxiv.org/abs/2404.02905.
    """

    def __init__(self, side: int) -> None:
        self.side = side
        self.sides = [1 << power for power in range(side.bit_length())]  # 1, 2, 4, ..., s

    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        left = rearrange(patches, "b (h w) c -> b c h w", h=self.side)
        tokens = []
        for side in self.sides:
            averages = F.avg_pool2d(left, self.side // side)
            tokens.append(rearrange(averages, "b c h w -> b (h w) c"))
            left = left - self._spread(averages)
        return torch.cat(tokens, dim=1)

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        counts = [side * side for side in self.sides]
        parts = filled(tokens, sum(counts)).split(counts, dim=1)
        grids = (
            rearrange(part, "b (h w) c -> b c h w", h=side)
            for part, side in zip(parts, self.sides, strict=True)
        )
        patches = torch.stack([self._spread(grid) for grid in grids]).sum(dim=0)
        return rearrange(patches, "b c h w -> b (h w) c")

    def _spread(self, averages: Float[Tensor, "B C r r"]) -> Float[Tensor, "B C s s"]:
        times = self.side // averages.shape[-1]
        return averages.repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)


class Depth(Arrangement):
    """The larger half of the channels of every patch, row by row, then what is left of each."""

    def __init__(self, patches: int) -> None:
        self.patches = patches

    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        return torch.cat(patches.chunk(2, dim=2), dim=1)

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        return torch.cat(filled(tokens, 2 * self.patches).chunk(2, dim=1), dim=2)


class Spectrum(Arrangement):
    """Components of the whole image, those of most variance first: the best linear prefixes.

    Source: Pearson 1901, https://doi.org/10.1080/14786440109462720.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        return rearrange(patches, "b 1 (k d) -> b k d", k=self.tokens)

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        return rearrange(filled(tokens, self.tokens), "b k d -> b 1 (k d)")


class Noise(Arrangement):
    """The whole image again and again, in noise that falls: a diffusion read as a sequence.

    Each token is the one after it with more noise (a Markov chain), so that the token before holds
    all that the earlier ones say of it. The noise of an image is a function of its pixels.

    Source: Ho et al. 2020, "Denoising Diffusion Probabilistic Models", equation 2 with the chain
    read from its end, https://arxiv.org/abs/2006.11239.
    """

    def __init__(self, patches: int, levels: int, draw: int) -> None:
        self.patches, self.draw = patches, draw
        log_snr = torch.linspace(LEAST_LOG_SNR, MOST_LOG_SNR, levels)
        self.signal, self.noise = log_snr.sigmoid().sqrt(), (-log_snr).sigmoid().sqrt()

    def arrange(
        self, patches: Float[Tensor, "B N C"], images: UInt8[Tensor, "B 3 S S"]
    ) -> Float[Tensor, "B K D"]:
        clean = patches.flatten(1)
        drawn = torch.stack([self._drawn(image, clean.shape[1]) for image in images]).to(clean)
        tokens = [self.signal[-1] * clean + self.noise[-1] * drawn[:, -1]]
        for level in range(len(self.signal) - 2, -1, -1):
            kept = self.signal[level] / self.signal[level + 1]
            added = (self.noise[level] ** 2 - (kept * self.noise[level + 1]) ** 2).sqrt()
            tokens.append(kept * tokens[-1] + added * drawn[:, level])
        return torch.stack(tokens[::-1], dim=1)

    def restore(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B N C"]:
        """The best linear guess from the last token that is there, of patches of deviation 1."""
        level = tokens.shape[1] - 1
        guess = self.signal[level] * tokens[:, level]  # signal^2 + noise^2 is 1
        return guess.unflatten(1, (self.patches, -1))

    def _drawn(self, image: UInt8[Tensor, "3 S S"], values: int) -> Float[Tensor, "K D"]:
        seed = zlib.crc32(image.contiguous().cpu().numpy().tobytes(), self.draw)
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(len(self.signal), values, generator=generator)


def filled(tokens: Float[Tensor, "B k D"], whole: int) -> Float[Tensor, "B K D"]:
    """Put 0 in the place of the tokens that are missing."""
    return F.pad(tokens, (0, 0, 0, whole - tokens.shape[1]))

"""What stands between files and the orderer: images to uint8 pixels, captions to word pieces.

The tokenizer is open_clip's byte-pair encoding, which comes with the package, so that nothing is
downloaded.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from transformers.utils import PushToHubMixin, cached_file

from .pretrained import read_settings

FILE = "preprocessor_config.json"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What is said of a batch of images, each different caption once."""

    texts: Int[Tensor, "U L"]
    """The U captions, tokenised."""
    numbers: Int[Tensor, "U"]
    """A number for each, the same for equal captions in every process."""
    at: Int[Tensor, "B J"]
    """Which of them each image has at each measured prefix."""

    def to(self, device: torch.device) -> "Said":
        return Said(
            texts=self.texts.to(device), numbers=self.numbers.to(device), at=self.at.to(device)
        )


class OrdererProcessor(PushToHubMixin):
    """Saved beside an orderer, and all that its inputs need."""

    def __init__(self, image_size: int, context_length: int) -> None:
        self.image_size = image_size
        self.context_length = context_length

    @cached_property
    def _tokenizer(self) -> Any:
        from open_clip.tokenizer import SimpleTokenizer  # slow to import

        return SimpleTokenizer(context_length=self.context_length)

    def pixels(self, images: Sequence[Image.Image]) -> UInt8[Tensor, "B 3 S S"]:
        """Turn images as their EXIF says, lay them on white, crop the centre square, resize it."""
        return torch.stack([self._pixels(image) for image in images])

    def _pixels(self, image: Image.Image) -> UInt8[Tensor, "3 S S"]:
        image = _on_white(ImageOps.exif_transpose(image))
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        small = square.resize((self.image_size, self.image_size), Image.Resampling.BICUBIC)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous()

    def text(self, captions: Sequence[str]) -> Int[Tensor, "B L"]:
        """Tokenise captions, padded with 0 to the longest of them.

        Raises:
            ValueError: for a caption longer than the context, naming both.
        """
        pieces = [self._pieces(caption) for caption in captions]
        longest = max(map(len, pieces))
        return torch.tensor([[*p, *[0] * (longest - len(p))] for p in pieces])

    @lru_cache(maxsize=1 << 18)  # noqa: B019  (a processor lives as long as its program)
    def _pieces(self, caption: str) -> tuple[int, ...]:
        tokenizer = self._tokenizer
        pieces = tokenizer.encode(caption)
        if len(pieces) + 2 > self.context_length:
            raise ValueError(
                f"the caption {caption[:80]!r} has {len(pieces)} word pieces, "
                f"this orderer reads at most {self.context_length - 2}"
            )
        return (tokenizer.sot_token_id, *pieces, tokenizer.eot_token_id)

    def fits(self, caption: str) -> bool:
        """Say whether a caption is no longer than the context."""
        return len(self._tokenizer.encode(caption)) + 2 <= self.context_length

    def identities(self, captions: Sequence[str]) -> Int[Tensor, "B"]:
        """A number per caption, the same for equal captions in every process."""
        digests = (hashlib.sha256(caption.encode()).digest()[:7] for caption in captions)
        return torch.tensor([int.from_bytes(digest) for digest in digests])

    def said(self, captions: Sequence[Sequence[str]]) -> Said:
        """Tokenise the captions that each image has, one at each measured prefix."""
        places = {caption: None for of_one in captions for caption in of_one}
        index = {caption: place for place, caption in enumerate(places)}
        return Said(
            texts=self.text(list(places)),
            numbers=self.identities(list(places)),
            at=torch.tensor([[index[caption] for caption in of_one] for of_one in captions]),
        )

    def images(self, pixels: Float[Tensor, "B 3 S S"]) -> list[Image.Image]:
        """Turn decoded pixels in [-1, 1] into pictures."""
        levels = ((pixels.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return [Image.fromarray(level.permute(1, 2, 0).numpy()) for level in levels]

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Write the settings into a model's folder; `push_to_hub` uploads what this writes.

        Args:
            folder: made if it is not there.
            kwargs: the size of weight files, which `push_to_hub` gives and a processor has none of.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        settings = {"image_size": self.image_size, "context_length": self.context_length}
        Path(folder, FILE).write_text(json.dumps(settings, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, name: str | Path) -> "OrdererProcessor":
        """Read the settings from a local folder, or by its name from a hub.

        Args:
            name: a `Path` is always local.

        Raises:
            OSError: if nothing that can be read is there.
            ValueError: if it is a processor of another kind.
        """
        folder = Path(name)
        if isinstance(name, str) and not folder.is_dir():
            folder = _folder_from_hub(name)
        settings = read_settings(folder, FILE)
        if settings.keys() != {"image_size", "context_length"}:
            raise ValueError(f"{folder / FILE} is of no orderer, it has {', '.join(settings)}")
        for setting, value in settings.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{setting} must be a whole number of at least 1, got {value!r}")
        return cls(**settings)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion clips at 255
        levels = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")


def _folder_from_hub(name: str) -> Path:
    try:
        return Path(cached_file(name, FILE)).parent
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"no processor can be read from {name}: {reason}") from error

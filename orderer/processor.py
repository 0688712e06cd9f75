"""What stands between files and the orderer: images to uint8 pixels, captions to word pieces.

The tokenizer is open_clip's byte-pair encoding, which comes with the package, so that nothing is
downloaded; or the one of the orderer's text encoder, saved beside the settings.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from transformers.utils import PushToHubMixin

from .formats import Migration, up_to_date
from .pieces import END_PIECE, START_PIECE
from .saved import find_saved, read_settings
from .tokenizer import FILE as RULES
from .tokenizer import LocalTokenizer

FILE = "preprocessor_config.json"
SETTINGS = ("image_size", "context_length")
VERSION = 2
"""Of the format of saved settings; version 1 did not carry its number."""
MIGRATIONS: dict[int, Migration] = {1: lambda settings: settings}


ADDED = 2
"""Pieces of open_clip's that every text has, its start and its end."""


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

    def __init__(
        self, image_size: int, context_length: int, tokenizer: LocalTokenizer | None = None
    ) -> None:
        self.image_size = image_size
        self.context_length = context_length
        self.local = tokenizer

    def pixels(self, images: Sequence[Image.Image]) -> UInt8[Tensor, "B 3 S S"]:
        """Turn images as their EXIF says, lay them on white, crop the centre square, resize it.

        Raises:
            ValueError: for anything but a list of pictures.
        """
        _check_list(images, "images", Image.Image)
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
            ValueError: for a caption without a word or longer than the context, and for anything
                but a list of texts.
        """
        _check_list(captions, "captions", str)
        pieces = [self._pieces(caption) for caption in captions]
        for place, of_one in enumerate(pieces):
            if len(of_one) == self._added:
                raise ValueError(f"caption {place} (from 0) has no word, got {captions[place]!r}")
        longest = max(map(len, pieces))
        return torch.tensor([[*p, *[0] * (longest - len(p))] for p in pieces])

    def _pieces(self, caption: str) -> tuple[int, ...]:
        most = self.context_length
        if self.local:
            return _no_longer(most, tuple(self.local.encode(caption)), self._added, caption)
        return _short_pieces(caption, most)

    @property
    def _added(self) -> int:
        """Pieces of every text that are no part of its words."""
        return self.local.added if self.local else ADDED

    def words(self, text: Int[Tensor, "B L"]) -> list[str]:
        """Read captions in word pieces, up to their end, as the tokenizer spells them.

        Raises:
            ValueError: for the pieces of another tokenizer than open_clip's.
        """
        if self.local:
            raise ValueError(
                "captions are read in open_clip's word pieces, got a local tokenizer's"
            )
        return [
            _tokenizer().decode(pieces[1 : pieces.index(END_PIECE)]).strip()
            for pieces in text.tolist()
        ]

    def pieces(self, captions: Iterable[Sequence[str]]) -> list[int]:
        """The word pieces of captions, each once, in growing order; the end is one of them."""
        used = {piece for of_one in captions for each in of_one for piece in self._pieces(each)}
        return sorted(used - {START_PIECE} | {END_PIECE})

    def fits(self, caption: str) -> bool:
        """Say whether a caption has a word, and is no longer than the context."""
        pieces = self.local.encode(caption) if self.local else _clip_pieces(caption)
        return self._added < len(pieces) <= self.context_length

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
        settings = {name: getattr(self, name) for name in SETTINGS} | {"format_version": VERSION}
        Path(folder, FILE).write_text(json.dumps(settings, indent=2) + "\n")
        if self.local:
            self.local.save(Path(folder))

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *, revision: str | None = None, **kwargs: Any
    ) -> "OrdererProcessor":
        """Read the settings from a local folder, or by its name from a hub.

        Args:
            name: a `Path` is always local.
            revision: commit, tag or branch of a hub's repository.
            kwargs: those of a download, see `find_saved`.

        Raises:
            OSError: if nothing that can be read is there.
            ValueError: if it is a processor of another kind or of a newer format.
        """
        folder = find_saved(name, "processor", revision=revision, **kwargs).folder
        saved = {"format_version": 1, **read_settings(folder, FILE)}
        settings = up_to_date(saved, cls.__name__, VERSION, MIGRATIONS)
        del settings["format_version"]
        if settings.keys() != set(SETTINGS):
            raise ValueError(f"{folder / FILE} is of no orderer, it has {', '.join(settings)}")
        for setting, value in settings.items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{setting} must be a whole number of at least 1, got {value!r}")
        return cls(
            **settings,
            tokenizer=LocalTokenizer.read(folder) if (folder / RULES).is_file() else None,
        )


@cache
def _tokenizer() -> Any:
    """One for all processors: it takes 20 MB and a third of a second."""
    from open_clip.tokenizer import SimpleTokenizer  # slow to import

    return SimpleTokenizer()


def _clip_pieces(caption: str) -> tuple[int, ...]:
    """The pieces of a caption of any length, its start and its end."""
    tokenizer = _tokenizer()
    return (tokenizer.sot_token_id, *tokenizer.encode(caption), tokenizer.eot_token_id)


@lru_cache(maxsize=1 << 18)
def _short_pieces(caption: str, most: int) -> tuple[int, ...]:
    """The same, kept for the next time."""
    return _no_longer(most, _clip_pieces(caption), ADDED, caption)


def _no_longer(most: int, pieces: tuple[int, ...], added: int, caption: str) -> tuple[int, ...]:
    if len(pieces) > most:
        raise ValueError(
            f"the caption {caption[:80]!r} has {len(pieces) - added} word pieces, "
            f"this orderer reads at most {most - added}"
        )
    return pieces


def _check_list(values: Any, what: str, kind: type) -> None:
    """Refuse a lone value where a list is meant: a text is a sequence of letters."""
    if isinstance(values, kind):
        raise ValueError(f"{what} must be a list, got a lone {type(values).__name__}")
    if len(values) == 0:
        raise ValueError(f"{what} must be at least one, got none")
    for place, value in enumerate(values):
        if not isinstance(value, kind):
            raise ValueError(
                f"{what} must be a list of {kind.__name__}, number {place} (from 0) is "
                f"{type(value).__name__}"
            )


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # 16-bit grey: Pillow's own conversion clips at 255
        levels = np.asarray(image).astype(np.int64) // 257
        return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), coloured).convert("RGB")

"""Models that say how well a caption fits an image: one of open_clip's, or an orderer of ours.

Letters: B images, S pixels on a side, C captions of all of them, E embedding size.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from data import Fit, Scorer
from orderer import Orderer, OrdererProcessor
from recipes.clip import SETTINGS, Clip

CLIP_FITS: dict[str, Fit] = {"shortest": "crop", "squash": "squash"}
"""Its words for how images come to a size, and ours."""
UNREAD = -1.0
"""Score of a caption that is too long for an orderer: no training of it could read that either."""


def open_scorer(folder: Path, device: torch.device) -> Scorer:
    """Load whichever model is in a folder.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it cannot be read.
    """
    if (folder / SETTINGS).is_file():
        return ClipScorer(folder, device)
    if (folder / "config.json").is_file():
        return OrdererScorer(folder, device)
    raise FileNotFoundError(f"{folder} holds neither an open_clip model nor an orderer")


class ClipScorer:
    """Cosine similarity in [-1, 1], by any model of open_clip's."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.clip = Clip(str(folder), device)
        shown = self.clip.showing
        if shown["resize_mode"] not in CLIP_FITS:
            raise ValueError(f"{folder} pads its images ({shown['resize_mode']}), we do not")
        size = shown["size"]
        self.image_size: int = size if isinstance(size, int) else size[0]
        self.fit = CLIP_FITS[shown["resize_mode"]]
        self.mean, self.std = (torch.tensor(shown[name])[:, None, None] for name in ("mean", "std"))

    def __call__(
        self, images: UInt8[Tensor, "B 3 S S"], captions: Sequence[Sequence[str]]
    ) -> Float[Tensor, "B"]:
        embedded = self.clip.embed_images((images / 255 - self.mean) / self.std)
        texts = self.clip.embed_texts([each for of_one in captions for each in of_one])
        return _best(embedded, texts, captions)


class OrdererScorer:
    """Cosine similarity in [-1, 1], by an orderer that has read all its tokens of an image."""

    fit: Fit = "crop"

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = Orderer.from_pretrained(folder).to(device).eval()
        self.processor = OrdererProcessor.from_pretrained(folder)
        self.image_size = self.processor.image_size
        self.device = device

    @torch.inference_mode()
    def __call__(
        self, images: UInt8[Tensor, "B 3 S S"], captions: Sequence[Sequence[str]]
    ) -> Float[Tensor, "B"]:
        read = [[each for each in of_one if self.processor.fits(each)] for of_one in captions]
        scores = torch.full((len(images),), UNREAD)
        places = [place for place, of_one in enumerate(read) if of_one]
        if places:
            text = self.processor.text([each for of_one in read for each in of_one])
            embedded = self.model.embed_images(images[places].to(self.device))
            texts = self.model.embed_texts(text.to(self.device))
            scores[places] = _best(embedded, texts, [read[place] for place in places]).cpu()
        return scores


def _best(
    images: Float[Tensor, "B E"], texts: Float[Tensor, "C E"], captions: Sequence[Sequence[str]]
) -> Float[Tensor, "B"]:
    """The score of each image with its best caption; the texts of the first image come first."""
    counts = torch.tensor([len(of_one) for of_one in captions], device=images.device)
    scores = (images.repeat_interleave(counts, dim=0) * texts).sum(dim=-1)  # [C]
    return torch.stack([of_one.max() for of_one in scores.split(counts.tolist())])

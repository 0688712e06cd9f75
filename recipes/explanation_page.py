"""An explanation as one page: pictures, curves, tables; nothing but this file is needed."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from recipes.engine import pictures
from recipes.engine.gallery import Gallery, Picture
from recipes.engine.page import Section, Table, write_page
from recipes.explaining import Explained, Explanation

DIMMED = 0.15
"""Brightness of the patches that a token does not look at."""
MOST_MAPS = 32
"""Tokens of an image whose maps are shown."""
QUALITY = 92


def write_explanation(path: Path, explanation: Explanation) -> None:
    """Draw everything and write it as one HTML file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        sections = [
            *(section for each in explanation.images for section in _of_image(each)),
            _adds(explanation, Path(folder)),
            _redundancy(explanation, Path(folder)),
            _order(explanation, Path(folder)),
            *_factors(explanation, Path(folder)),
        ]
        intro = (
            f"The orderer {explanation.encoding_hash[:12]}, measured on {explanation.count} images "
            f"of {explanation.split}."
        )
        write_page(path, "What the tokens hold", intro, sections)


def _of_image(image: Explained) -> list[Section]:
    """Two galleries: the image at each prefix, and where each token looks."""
    subject = image.subject
    real = _picture(subject.image, subject.captions[::-1], "the image")
    cut = [
        _picture(
            at.rebuilt,
            [f"writes: {at.written}"] * (at.written is not None)
            + [f"nearest: {caption}" for caption in at.nearest],
            f"{at.k} token{'s' * (at.k > 1)}, {at.psnr:.1f} dB",
        )
        for at in image.prefixes
    ]
    maps = [
        _picture(_lit(subject.image, one), (), f"token {number}")
        for number, one in enumerate(image.attribution[:MOST_MAPS], start=1)
    ]
    return [
        Section(
            heading=f"{subject.name}, from its first tokens", parts=[Gallery(pictures=[real, *cut])]
        ),
        Section(
            heading=f"{subject.name}, where each token looks",
            text="The brighter a patch, the more the token changes with it. Full brightness is the "
            "patch that the token reacts to most.",
            parts=[Gallery(pictures=maps)],
        ),
    ]


def _lit(image: UInt8[Tensor, "3 S S"], shares: Float[Tensor, "R C"]) -> UInt8[Tensor, "3 S S"]:
    """Dim an image where a token does not look."""
    light = DIMMED + (1 - DIMMED) * shares / shares.max().clamp(min=1e-30)
    light = F.interpolate(light[None, None], image.shape[1:], mode="nearest")[0]  # [1, S, S]
    return (image * light).round().to(torch.uint8)


def _picture(image: UInt8[Tensor, "3 S S"], texts: Sequence[str], note: str) -> Picture:
    file = io.BytesIO()
    array = image.permute(1, 2, 0).numpy()
    times = max(1, 128 // max(array.shape[:2]))  # JPEG of single pixels would blur them
    large = Image.fromarray(np.ascontiguousarray(array)).resize(
        (array.shape[1] * times, array.shape[0] * times), Image.Resampling.NEAREST
    )
    large.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return Picture(
        jpeg=file.getvalue(), width=large.width, height=large.height, texts=texts, note=note
    )


def _adds(explanation: Explanation, folder: Path) -> Section:
    """Error, retrieval and likelihood against the prefix."""
    series = {"PSNR, dB": explanation.psnr, "text to image R@1": explanation.recall}
    if explanation.likelihood is not None:
        series["log-likelihood of the caption, nats a piece"] = explanation.likelihood
    drawn: list[tuple[Path, str]] = []
    for name, points in series.items():
        path = folder / f"{len(drawn)}.png"
        pictures.curves({name: points}, path, x_label="tokens", y_label=name)
        drawn.append((path, f"{name}, against the number of tokens"))
    rows = [(k, *(_added(points, k) for points in series.values())) for k in explanation.psnr]
    return Section(
        heading="What each token adds",
        text="Over all images of the split. In the table the first token has its own figure, every "
        "later one the difference to the prefix before it.",
        pictures=drawn,
        tables=[Table(columns=("token", *series), rows=rows)],
    )


def _added(points: Mapping[int, float], k: int) -> float | None:
    """What token k adds to the prefix before it; of the first its own figure."""
    if k == 1:
        return points[1]
    return points[k] - points[k - 1] if k in points and k - 1 in points else None


def _redundancy(explanation: Explanation, folder: Path) -> Section:
    path = folder / "redundancy.png"
    pictures.heat_map(
        explanation.by_each, path, x_label="given token", y_label="token", legend="explained"
    )
    rows = [(k, share) for k, share in enumerate(explanation.by_before.tolist(), start=1)]
    return Section(
        heading="What other tokens already say",
        text="Share of a token's variance that a linear map of one other token explains, on images "
        "it was not fitted on; in the table, of all tokens before it together.",
        pictures=[(path, "how much of each token (row) each other token (column) explains")],
        tables=[Table(columns=("token", "explained by those before"), rows=rows)],
    )


def _order(explanation: Explanation, folder: Path) -> Section:
    path = folder / "gains.png"
    pictures.gain_maps(explanation.gains.numpy(), path)
    return Section(
        heading="Where each token improves the decoded image",
        text="By how much it lowers the squared error of each pixel, the mean over the split.",
        pictures=[(path, "token by token, each on a scale of its own")],
    )


def _factors(explanation: Explanation, folder: Path) -> list[Section]:
    if explanation.factors is None:
        return []
    scores = {
        factor: {int(k): score for k, score in found["score"].items()}
        for factor, found in explanation.factors.items()
    }
    path = folder / "factors.png"
    pictures.curves(scores, path, x_label="tokens", y_label="score", log2_x=True)
    rows = sorted(
        ((factor, found["readable_from"]) for factor, found in explanation.factors.items()),
        key=lambda row: row[1],
    )
    return [
        Section(
            heading="From which prefix on each factor is readable",
            text="A linear map answers, from the first tokens of scenes it was not fitted on, "
            "which shapes, colours, sizes and places are there, how many objects, and on which "
            "ground: 0 is chance, 1 always right. A factor counts as readable from 0.5 on; below "
            "1 token means that the first tells it well, twice all tokens that none does.",
            pictures=[(path, "score of each factor at each prefix")],
            tables=[Table(columns=("factor", "readable from, tokens"), rows=rows)],
        )
    ]

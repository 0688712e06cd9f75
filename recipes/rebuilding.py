"""How well images are rebuilt from every prefix of their tokens.

N images   K tokens   D channels of a token   S image side
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from orderer import prefix_lengths
from orderer.evaluation import gain_maps, intervals, mean_psnr, mean_ssim, psnr, raster_leak
from orderer.evaluation.bootstrap import DRAWS
from orderer.evaluation.ssim import WINDOW
from orderer.objectives import Teacher, perceptual_distance
from orderer.sequences import ImageSequence
from orderer.transformers_towers import weight_files
from orderer.weights import digest_of
from recipes.decoding import decoded
from recipes.engine import pictures
from recipes.engine.sheets import prefix_strips
from recipes.experiment import Experiment
from recipes.feature_space import FeatureSpace
from recipes.fidelity import Fidelity
from recipes.training_record import read_record

BATCH = 50
SHOWN = 8
"""Images whose strips are drawn."""

Images = UInt8[Tensor, "N 3 S S"]


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """The networks that images are compared by, beside their pixels."""

    space: FeatureSpace | None = None
    teacher: Teacher | None = None


def reconstruction(
    images: Images,
    orderer: ImageSequence,
    tokens: Float[Tensor, "N K D"],
    eyes: Eyes,
    folder: Path,
) -> dict[str, Any]:
    """Figures at every prefix, and which part of the image each token improves.

    PSNR, with its interval over images, and SSIM where its window fits; with a teacher the
    perceptual distance in its eyes; with features the Fréchet distance to these very images.
    """
    fidelity = Fidelity(eyes.space, images) if eyes.space else None
    rebuilt = {k: decoded(orderer, tokens[:, :k]) for k in range(1, orderer.config.tokens + 1)}
    lengths = prefix_lengths(orderer.config.tokens)
    maps = gain_maps(images, [rebuilt[k] for k in sorted(rebuilt)], least=1)
    shown = {k: rebuilt[k][:SHOWN].numpy() for k in lengths}
    prefix_strips(images[:SHOWN].numpy(), shown, folder / "strips.png")
    pictures.gain_maps(maps.numpy(), folder / "gains.png")
    cells = orderer.config.image_size // orderer.config.patch_size
    leak = raster_leak(maps, cells)
    found: dict[str, Any] = {
        name: {str(k): measure(rebuilt[k]) for k in lengths}
        for name, measure in _measures(images, fidelity, eyes.teacher).items()
    }
    each = torch.stack([psnr(images, rebuilt[k]) for k in lengths], dim=1)  # [N, J]
    sure = intervals(each, torch.arange(len(each)), DRAWS)
    found["intervals"] = {"psnr": dict(zip(map(str, lengths), sure, strict=True))}
    if fidelity:
        found["fidelity"] = {**fidelity.numbers(len(images)), **fidelity.halves()}
    order = {"raster_leak": leak.pop("largest"), "by_order": leak, "images": len(images)}
    return {"reconstruction": found, "order": order}


def _measures(
    images: Images, fidelity: Fidelity | None, teacher: Teacher | None
) -> dict[str, Callable[[Images], float | None]]:
    """What is measured of rebuilt images."""
    measures: dict[str, Callable[[Images], float | None]] = {
        "psnr": lambda rebuilt: mean_psnr(images, rebuilt)
    }
    if images.shape[-1] >= WINDOW:
        measures["ssim"] = lambda rebuilt: mean_ssim(images, rebuilt)
    if teacher:
        measures["perceptual"] = lambda rebuilt: mean_perceptual(teacher, images, rebuilt)
    if fidelity:
        measures["frechet"] = fidelity.frechet_of
    return measures


@torch.no_grad()
def mean_perceptual(teacher: Teacher, images: Images, rebuilt: Images) -> float:
    """The mean over images of `perceptual_distance`: LPIPS, all channels weighed alike."""
    parts = zip(images.split(BATCH), rebuilt.split(BATCH), strict=True)
    sums = [perceptual_distance(teacher, _values(b), _values(a)) * len(a) for a, b in parts]
    return sum(each.item() for each in sums) / len(images)


def _values(images: Images) -> Float[Tensor, "N 3 S S"]:
    """Levels 0..255 to values in [-1, 1]."""
    return images.float() / 127.5 - 1


def make_teacher(experiment: Experiment, orderer: ImageSequence) -> Teacher | None:
    """Load the network of the perceptual distance, if there is to be one.

    Raises:
        OSError: if it cannot be read.
        ValueError: if the experiment's orderer learned to please this network, or sees with it.
    """
    folder = experiment.evaluation.perceptual_model
    if folder is None:
        return None
    teacher, trained = Teacher(folder), experiment.out / "orderer"
    pleased = (read_record(trained) or {}).get("teachers", {})
    seen = getattr(orderer.config, "features_weights", None)  # a fixed order has none
    if seen and seen["sha256"] == digest_of(weight_files(folder)):
        pleased = {**pleased, "features": teacher.weights}
    for part, weights in pleased.items():
        if weights == teacher.weights:
            raise ValueError(
                "evaluation.perceptual_model must be a network that no measured model was made "
                f"with, that in {folder} served {trained} as {part}"
            )
    return teacher

"""What tokens cost, against what they are good for: nats and decibels, at several noises.

Two orderers are compared at equal error: nats alone can be lowered by saying less. Where an AR
model knows less than a guess that only shrinks the noisy token, at levels that it hardly trained
at, that guess is taken: levels that the model ignores would else decide what tokens cost. What
noise costs in decibels is not charged where it can be taken out for nothing: a decoder that was
trained in noise takes it out by itself, a linear one has it done by a Gaussian.

Noise is a share of what the AR model scales a channel by, its own deviation for most. An order
whose channels matter unequally, as principal components do, pays then for bits that hardly show;
`white` says by a Gaussian how much.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ar import ARModel
from ar.joint import DrawnErrors, draw_errors
from orderer import OrdererProcessor
from orderer.evaluation import entropy_rank, mean_psnr, participation_rank
from orderer.sequences import ImageSequence
from recipes.conditions import condition_on
from recipes.decoding import decoded
from recipes.gaussian import Gaussian

NOISES = (0.5, 0.35, 0.25, 0.17, 0.12, 0.08, 0.05)
"""In what the AR model scales each channel by, its deviation for most."""
CHUNK = 50
"""Images at once: their noise depends on it."""
SEED = 0
LARGEST = 2048
"""Values of an image's tokens that a Gaussian of all is fitted to: its axes take their cube."""
STRETCHES = 20
"""Of noise levels, in each of which the model's guesses or the plain ones are taken."""
Curve = Mapping[str, Mapping[str, float]]
"""Noise to `nats` and `psnr`, among others."""


@torch.no_grad()
def rates(
    train: Float[Tensor, "M K D"],
    tokens: Float[Tensor, "N K D"],
    images: UInt8[Tensor, "N 3 S S"],
    captions: Sequence[str],
    model: ARModel,
    orderer: ImageSequence,
    processor: OrdererProcessor,
) -> dict[str, Any] | None:
    """Nats of an image, given its caption, and the PSNR that it is rebuilt with, at each noise.

    Of the first images, one for each caption, rebuilt from noisy tokens as they are, or as a
    Gaussian that was fitted to `train` guesses them to be, whichever leaves less error on all
    images. None for a head whose rate is not known.

    Returns:
        `at_noise`: by noise, `nats`; `gaussian`, what tokens would cost that are taken to be
        standard normal and independent, the most that an image can cost here; `together`, what they
        cost by the Gaussian, without a caption; and `psnr`. `white`: `nats` by the Gaussian and
        `psnr`, where the noise is the same for all channels, in the root of their mean variance.
        Neither `together` nor `white` for more than LARGEST values in all; noisy tokens are then
        shrunk one by one. Ranks of the tokens; `images`.
    """
    if not model.head.has_timesteps:
        return None
    tokens, images = tokens[: len(captions)], images[: len(captions)]
    generator = torch.Generator(tokens.device).manual_seed(SEED)
    is_known = train[0].numel() <= LARGEST
    gaussian = Gaussian.fit(model.standardise(train)) if is_known else None
    curve = {}
    for noise in NOISES:
        blur = torch.randn(tokens.shape, device=tokens.device, generator=generator)
        noisy = tokens + noise * model.std * blur
        standard = model.standardise(noisy)
        guess = gaussian.guess(standard, noise) if gaussian else shrunk(standard, noise)
        ways = noisy, model.restore(guess)
        curve[str(noise)] = {
            **nats_of(_drawn(tokens, captions, noise, model, orderer, processor, generator)),
            **({"together": gaussian.nats(standard, noise)} if gaussian else {}),
            "psnr": max(mean_psnr(images, decoded(orderer, way)) for way in ways),
        }
    return {
        "at_noise": curve,
        **({"white": _white(train, tokens, images, orderer, generator)} if is_known else {}),
        "entropy_rank": entropy_rank(tokens),
        "participation_rank": participation_rank(tokens),
        "images": len(tokens),
    }


def shrunk(standard: Float[Tensor, "N K D"], noise: float) -> Float[Tensor, "N K D"]:
    """The best linear guess of independent standard tokens from noisy ones."""
    return standard / (1 + noise**2)


def _white(
    train: Float[Tensor, "M K D"],
    tokens: Float[Tensor, "N K D"],
    images: UInt8[Tensor, "N 3 S S"],
    orderer: ImageSequence,
    generator: torch.Generator,
) -> dict[str, dict[str, float]]:
    """Nats and PSNR by a Gaussian, where noise is the same for all channels."""
    gaussian = Gaussian.fit(train)
    unit = gaussian.variances.mean().sqrt().item()
    found = {}
    for noise in NOISES:
        blur = torch.randn(tokens.shape, device=tokens.device, generator=generator)
        noisy = tokens + noise * unit * blur
        ways = noisy, gaussian.guess(noisy, noise * unit)
        found[str(noise)] = {
            "nats": gaussian.nats(noisy, noise * unit),
            "psnr": max(mean_psnr(images, decoded(orderer, way)) for way in ways),
        }
    return found


def _drawn(
    tokens: Float[Tensor, "N K D"],
    captions: Sequence[str],
    noise: float,
    model: ARModel,
    orderer: ImageSequence,
    processor: OrdererProcessor,
    generator: torch.Generator,
) -> list[DrawnErrors]:
    """The model's errors on some images after others."""
    drawn = []
    for i in range(0, len(tokens), CHUNK):
        condition = condition_on(captions[i : i + CHUNK], model, orderer, processor)
        drawn.append(draw_errors(model, tokens[i : i + CHUNK], condition, noise, generator))
    return drawn


def nats_of(drawn: Sequence[DrawnErrors]) -> dict[str, float]:
    """What all tokens of an image cost, in the mean: `nats`, and `gaussian` without the model.

    Which guesses are taken is decided for a whole stretch of noise levels, by all images: one
    choice of many errors hardly favours either side, so that the sum is an upper bound but for
    little.
    """
    places = torch.cat([each.place.flatten() for each in drawn])
    stretches = (places * STRETCHES).long().clamp(max=STRETCHES - 1)
    by_model, plain = (
        torch.bincount(stretches, torch.cat(errors).double(), minlength=STRETCHES)
        for errors in (
            [each.weighed.sum(dim=-1).flatten() for each in drawn],
            [each.plain.sum(dim=-1).flatten() for each in drawn],
        )
    )
    share = drawn[0].span / 2 / len(places)
    least = torch.cat([each.least.sum(dim=-1) for each in drawn]).mean().item()
    return {
        "nats": share * torch.minimum(by_model, plain).sum().item() + least,
        "gaussian": share * plain.sum().item() + least,
    }


def saved(curve: Curve, reference: Curve, points: int = 100) -> float | None:
    """The share of a reference's nats that a curve saves at equal PSNR, over all that both reach.

    The mean is of logarithms, so that 1 of 10 counts like 10 of 100; between measured noises both
    curves are straight. None where no PSNR is reached by both.

    Source: Bjontegaard 2001, "Calculation of average PSNR differences between RD-curves",
    VCEG-M33 (there through polynomials).
    """
    spans = [[at["psnr"] for at in each.values()] for each in (curve, reference)]
    low, high = max(map(min, spans)), min(map(max, spans))
    if low > high:
        return None
    ratios = []
    for i in range(points):
        psnr = low + (high - low) * i / (points - 1)
        ours, theirs = nats_at(psnr, curve), nats_at(psnr, reference)
        if ours is not None and theirs is not None and min(ours, theirs) > 0:
            ratios.append(math.log(ours / theirs))
    return 1 - math.exp(sum(ratios) / len(ratios)) if ratios else None


def nats_at(psnr: float, curve: Curve) -> float | None:
    """The nats at which images have a PSNR, between two measured noises; None outside of them."""
    points = sorted((at["psnr"], at["nats"]) for at in curve.values())
    for (low, cheap), (high, dear) in pairwise(points):
        if low <= psnr <= high:
            return cheap + (dear - cheap) * (psnr - low) / max(high - low, 1e-9)
    return None

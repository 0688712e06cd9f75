"""Rules of a curation that look at images."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64

from .candidates import Candidates, Left, Rule
from .looks import Looks
from .similar import CPU, Alike, Progress, alike_among, alike_in, silent


def resolution(least: int) -> Rule:
    """Ask that the shorter side has so many pixels.

    Raises:
        ValueError: for a number below 1.
    """
    if least < 1:
        raise ValueError(f"the shorter side must be at least 1, got {least}")
    return _of_looks("resolution", {"least": least}, lambda look: look.sizes.min(axis=1) >= least)


def aspect_ratio(most: float) -> Rule:
    """Ask that the longer side is no more than so many times the shorter.

    Raises:
        ValueError: for a number below 1.
    """
    if not most >= 1:
        raise ValueError(f"the longer side over the shorter must be at least 1, got {most}")
    return _of_looks(
        "aspect ratio",
        {"most": most},
        lambda look: look.sizes.max(axis=1) <= most * look.sizes.min(axis=1),
    )


def score(least: float) -> Rule:
    """Ask that the best caption of an image fits it, as the scorer says; no score fails."""
    return _of_looks("score", {"least": least}, lambda look: look.scores >= least)


def exact_duplicates() -> Rule:
    """Leave one of the images that have the same pixels, the first."""

    def find(look: Looks) -> Int64[np.ndarray, "N"]:
        _, first, which = np.unique(look.digests, axis=0, return_index=True, return_inverse=True)
        earlier = first[which]
        return np.where(earlier < np.arange(len(earlier)), earlier, -1)

    return _of_alike("exact duplicates", {}, find)


def near_duplicates(alike: Alike, device: torch.device = CPU, progress: Progress = silent) -> Rule:
    """Leave one of the images that are nearly the same, the first."""

    def find(look: Looks) -> Int64[np.ndarray, "N"]:
        return alike_among(look.thumbnails, alike, device=device, progress=progress)

    return _of_alike("near duplicates", vars(alike), find)


def exact_leakage(of: Looks) -> Rule:
    """Remove the images whose pixels an evaluation set has."""
    places = {digest.tobytes(): place for place, digest in reversed([*enumerate(of.digests)])}

    def find(look: Looks) -> Int64[np.ndarray, "N"]:
        return np.array([places.get(digest.tobytes(), -1) for digest in look.digests], np.int64)

    return _of_alike("exact leakage", {}, find, is_leakage=True)


def near_leakage(
    of: Looks, alike: Alike, device: torch.device = CPU, progress: Progress = silent
) -> Rule:
    """Remove the images that are nearly the same as one of an evaluation set."""

    def find(look: Looks) -> Int64[np.ndarray, "N"]:
        return alike_in(look.thumbnails, of.thumbnails, alike, device=device, progress=progress)

    return _of_alike("near leakage", vars(alike), find, is_leakage=True)


def _of_looks(
    name: str, options: Mapping[str, Any], stays: Callable[[Looks], Bool[np.ndarray, "N"]]
) -> Rule:
    def apply(candidates: Candidates) -> Left:
        return Left(candidates=candidates.keep(stays(candidates.seen)))

    return Rule(name=name, options=options, apply=apply, needs_images=True)


def _of_alike(
    name: str,
    options: Mapping[str, Any],
    find: Callable[[Looks], Int64[np.ndarray, "N"]],
    is_leakage: bool = False,
) -> Rule:
    """Make a rule of a function that gives the place of an image that each one is like, or -1.

    The place is among the candidates, or, for a rule of leakage, in the evaluation sets.
    """

    def apply(candidates: Candidates) -> Left:
        like = find(candidates.seen)
        goes = like >= 0
        others = like[goes] if is_leakage else candidates.rows[like[goes]]
        return Left(
            candidates=candidates.keep(~goes),
            alike=np.stack([candidates.rows[goes], others], axis=1),
        )

    return Rule(name=name, options=options, apply=apply, needs_images=True, is_leakage=is_leakage)

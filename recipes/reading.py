"""How many characters of strings a fresh reader recovers, from tokens, from codes, from pixels."""

import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ar.evaluation.fitting import centred, fit
from data import Pairs
from data.strings import ALPHABET, BITS, LENGTHS, load_strings
from orderer import Orderer
from orderer.evaluation import (
    StringReader,
    fit_codes,
    mean_psnr,
    most_recovered,
    quantised,
    recovered,
    spelt,
)
from orderer.patches import patchify
from recipes.decoding import decoded
from recipes.engine.processes import seed_everything
from recipes.engine.sheets import strips
from recipes.experiment import Experiment
from recipes.probing import tokens_of

CONTINUOUS = "continuous"
SHOWN = 6
"""Strings whose rebuilt images are drawn."""


def strings_read(
    experiment: Experiment, pairs: Pairs, orderer: Orderer, folder: Path
) -> dict[str, Any]:
    """Read the tokens of an orderer as they are, and as codes of the same length.

    Args:
        experiment: says how to read.
        pairs: strings to test on.
        orderer: trained on others.
        folder: for a picture of what is rebuilt.

    Returns:
        For "continuous" and for each number of levels what was read, and how well tokens rebuild.
    """
    settings, config = experiment.evaluation.strings, orderer.config
    learned = load_strings("reader", settings.strings, config.image_size)
    tokens, tested = tokens_of(orderer, learned).cpu(), tokens_of(orderer, pairs).cpu()
    codes = fit_codes(tokens, settings.codes, max(settings.levels))
    bits = config.tokens * math.log2(settings.codes)  # of a level
    found, shown = {}, {"original": pairs.images[:SHOWN]}
    for level in (None, *sorted(settings.levels, reverse=True)):
        known, told = (_told(each, codes, level) for each in (tokens, tested))
        rebuilt = decoded(orderer, told.to(orderer.device))
        shown[f"{level} x {settings.codes}" if level else CONTINUOUS] = rebuilt[:SHOWN]
        found[str(level or CONTINUOUS)] = {
            **read(experiment, known, learned, told, pairs),
            "bits": level and level * bits,
            "most": level and most_recovered(level * bits, _by_length(pairs), len(ALPHABET)),
            "psnr": mean_psnr(pairs.images, rebuilt),
        }
    strips(shown, folder / "strings.png")
    return found


def _told(
    tokens: Float[Tensor, "N K D"], codes: Float[Tensor, "L K V D"], level: int | None
) -> Float[Tensor, "N K D"]:
    """Tokens as they are, or in codes of the first levels."""
    return quantised(tokens, codes[:level]) if level else tokens


def pixels_read(experiment: Experiment) -> dict[str, Any]:
    """Read the patches themselves: what the reader could recover of tokens that lose nothing."""
    config = experiment.orderer_config()
    learned = load_strings("reader", experiment.evaluation.strings.strings, config.image_size)
    pairs = experiment.data.open_test(config.image_size)
    patches = [patchify(centred(each.images), config.patch_size) for each in (learned, pairs)]
    return read(experiment, patches[0], learned, patches[1], pairs)


@torch.enable_grad()
def read(
    experiment: Experiment,
    tokens: Float[Tensor, "N K D"],
    learned: Pairs,
    tested: Float[Tensor, "M K D"],
    pairs: Pairs,
) -> dict[str, Any]:
    """Train a reader on tokens of strings, and have it read others."""
    settings, places = experiment.evaluation.strings, max(LENGTHS)
    characters = _characters(learned)
    seed_everything(experiment.seed, rank=0)
    reader = StringReader(tokens, places, len(ALPHABET), settings.width)
    fit(
        reader,
        lambda chosen: reader.loss(tokens[chosen], characters[chosen]),
        examples=len(tokens),
        steps=settings.steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=experiment.seed,
    )
    by_length = recovered(reader.read(tested), _characters(pairs))
    number = _by_length(pairs)
    right = sum(share * number[length] for length, share in by_length.items())
    return {
        "share": right / sum(number.values()),
        "characters": right / len(pairs),
        "by_length": {str(length): share for length, share in by_length.items()},
    }


def about_strings(experiment: Experiment, pairs: Pairs) -> dict[str, Any]:
    """How strings were read, for the protocol."""
    mean_length = sum(_by_length(pairs).values()) / len(pairs)
    return {
        "fit": {"split": "reader", "strings": experiment.evaluation.strings.strings},
        "characters": mean_length,
        "bits": mean_length * BITS,
        "seed": experiment.seed,
        "coding": "k-means after the training, of each place and level; readers learn on the codes",
        "most": "share that no reader of so many bits exceeds, by rate and distortion",
    }


def _characters(pairs: Pairs) -> Tensor:
    return spelt([text for (text,) in pairs.captions], ALPHABET, max(LENGTHS))


def _by_length(pairs: Pairs) -> dict[int, int]:
    """Length of a string to how many characters are of strings so long."""
    lengths = [len(text) for (text,) in pairs.captions]
    return {length: length * lengths.count(length) for length in sorted(set(lengths))}

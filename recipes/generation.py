"""Images drawn from the captions of a split, and what a judge says of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ar import ARModel, Sampling
from ar.evaluation import deviations, drifting
from data import Pairs
from orderer import OrdererProcessor
from orderer.sequences import ImageSequence
from recipes.conditions import condition_on
from recipes.decoding import BATCH, decoded
from recipes.engine.sheets import captioned_grid
from recipes.experiment import Experiment
from recipes.fidelity import Fidelity, sentence
from recipes.guidance import picture_of, samplings
from recipes.judging import Judge, learned_images

GRID = 24
"""Images in a grid of generated ones."""
APART = 1_000_000
"""Seeds of generated images between two seeds of an experiment."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawer:
    """A pair of models that draw from captions, and how they are asked to."""

    experiment: Experiment
    orderer: ImageSequence
    processor: OrdererProcessor
    model: ARModel

    def seeds(self, number: int) -> range:
        """The seeds of generated images, one for each caption."""
        first = APART * self.experiment.seed
        return range(first, first + number)

    def draw(
        self, captions: Sequence[str], sampling: Sampling, first: Tensor | None = None
    ) -> Tensor:
        """The tokens of an image for each caption, which may begin with given ones."""
        seeds = self.seeds(len(captions))
        parts = [slice(i, i + BATCH) for i in range(0, len(captions), BATCH)]
        tokens = [
            self.model.generate(
                condition_on(captions[part], self.model, self.orderer, self.processor),
                sampling=sampling,
                seeds=seeds[part],
                first=None if first is None else first[part],
            )
            for part in parts
        ]
        return torch.cat(tokens)


def prompts(experiment: Experiment, pairs: Pairs, number: int | None = None) -> list[str]:
    """One caption of each of the first images: of as many as are generated, by default."""
    place = 0 if experiment.evaluation.captions == "all" else -1
    number = experiment.evaluation.generated if number is None else number
    return [of_one[place] for of_one in pairs.captions[:number]]


def generation(
    drawer: Drawer, pairs: Pairs, judge: Judge, fidelity: Fidelity | None, folder: Path
) -> dict[str, Any]:
    """Generate an image for one caption of each of the first pairs, and judge them.

    Beside the judge's figures stand `deviations`, see `ar.evaluation`, and those of the same images
    rebuilt from their own tokens, which bound what can be reached, of the real ones, and what
    `chance` gives; distances to all images of the pairs where they can be taken.
    """
    experiment, orderer = drawer.experiment, drawer.orderer
    captions = prompts(experiment, pairs)
    real = pairs.images[: len(captions)]
    encoded = [orderer.encode(some.to(orderer.device)) for some in real.split(BATCH)]
    rebuilt = decoded(orderer, torch.cat(encoded))

    def judged(name: str, sampling: Sampling, picture: str) -> dict[str, Any]:
        tokens = drawer.draw(captions, sampling)
        images = decoded(orderer, tokens)
        captioned_grid(images[:GRID].numpy(), captions[:GRID], folder / f"{picture}.png", 6)
        standard = drawer.model.standardise(tokens)
        spread = deviations(standard).tolist() if len(tokens) > 1 else []
        if drifts := drifting(spread):
            places = ", ".join(map(str, drifts))
            print(f"guidance {name}: tokens {places} spread otherwise than the data's")
        scores: dict[str, Any] = {**judge.score(images), "deviations": spread}
        return scores | ({"fidelity": fidelity.of(images)} if fidelity else {})

    (own, sampling), *others = samplings(experiment).items()
    found = judged(own, sampling, "generated")
    found |= {"rebuilt": judge.score(rebuilt), "real": judge.score(real), "chance": judge.chance}
    if fidelity:
        found["fidelity"] |= fidelity.bounds(rebuilt, learned_images(experiment, pairs, judge))
        print(sentence(found["fidelity"]))
    if others:
        found["guided"] = {name: judged(name, each, picture_of(each)) for name, each in others}
    return found

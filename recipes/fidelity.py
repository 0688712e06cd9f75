"""How far images are from real ones as sets, in features that no measured model was made of.

N, M images   S image side   F features
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ar.evaluation import NEIGHBOURS, frechet_distance, kernel_distance, precision_recall
from data import Pairs
from recipes.evaluation_settings import Evaluation
from recipes.experiment import Experiment
from recipes.feature_space import JUDGE, OF_JUDGES, FeatureSpace, number_of_features
from recipes.judging import Judge

DISTANT = frozenset({"generation", "completion"})
"""Tasks that draw images of which distances are taken, beside those that are rebuilt."""


def can_see(evaluation: Evaluation) -> bool:
    """Whether there is a network to take distances with."""
    return evaluation.features != JUDGE or evaluation.judge in OF_JUDGES


def check_fidelity(experiment: Experiment) -> None:
    """Refuse to measure fidelity without images, or without a network to see them with.

    Raises:
        ValueError: naming what is missing.
    """
    evaluation = experiment.evaluation
    if "fidelity" not in evaluation.tasks:
        return
    if (DISTANT | {"reconstruction"}).isdisjoint(evaluation.tasks):
        raise ValueError(
            "the task fidelity measures the images of generation, completion or reconstruction, "
            f"evaluation.tasks has {', '.join(evaluation.tasks)}"
        )
    if not can_see(evaluation):
        raise ValueError(
            "the task fidelity sees with the network of evaluation.judge, which must be among "
            f"{', '.join(OF_JUDGES)}, got {evaluation.judge}, or with that of evaluation.features"
        )


def check_enough(experiment: Experiment, pairs: Pairs) -> None:
    """Refuse to take distances of too few images, before anything is trained for it.

    Raises:
        ValueError: with both numbers.
    """
    evaluation = experiment.evaluation
    if "fidelity" not in evaluation.tasks:
        return
    is_drawn = not DISTANT.isdisjoint(evaluation.tasks)
    number = min(evaluation.generated, len(pairs)) if is_drawn else len(pairs)
    least = number_of_features(evaluation.features, evaluation.judge) + 1
    if number < least:
        raise ValueError(
            f"the task fidelity needs at least {least} {'generated' if is_drawn else 'real'} "
            f"images, one more than features, got {number}"
        )


def make_space(experiment: Experiment, judge: Judge | None, device: torch.device) -> FeatureSpace:
    """The features that an experiment asks for."""
    return FeatureSpace(experiment.evaluation.features, judge.net if judge else None, device)


class Fidelity:
    """Distances to the real images of a split.

    Args:
        space: what sees.
        real: the images of the split.
    """

    def __init__(self, space: FeatureSpace, real: UInt8[Tensor, "N 3 S S"]) -> None:
        self.space = space
        self.sides = tuple(real.shape[2:])
        self.real: Float[Tensor, "N F"] = space(real)

    def of(self, images: UInt8[Tensor, "M 3 _ _"]) -> dict[str, Any]:
        """Every figure of a set of images, with the numbers that it depends on."""
        return {**_figures(self.real, self.see(images)), **self.numbers(len(images))}

    def frechet_of(self, images: UInt8[Tensor, "M 3 _ _"]) -> float | None:
        """The Fréchet distance alone; None for too few images."""
        return _if_enough(self.real, self.see(images))

    def see(self, images: UInt8[Tensor, "M 3 _ _"]) -> Float[Tensor, "M F"]:
        """Their features.

        Raises:
            ValueError: for images of another size than the real ones.
        """
        if tuple(images.shape[2:]) != self.sides:
            real, other = (" x ".join(map(str, side)) for side in (self.sides, images.shape[2:]))
            raise ValueError(
                f"images that are compared must be of one size, the real ones are {real} pixels, "
                f"got {other}"
            )
        return self.space(images)

    def numbers(self, number: int) -> dict[str, Any]:
        """What a distance depends on beside the images: their numbers and that of features."""
        return {
            "features": self.real.shape[1],
            "images": {"real": len(self.real), "generated": number},
        }

    def bounds(
        self, rebuilt: UInt8[Tensor, "M 3 S S"], learned: UInt8[Tensor, "L 3 S S"]
    ) -> dict[str, Any]:
        """What generated images can reach: that of rebuilt ones, and of other real ones.

        A Fréchet distance depends on the numbers of images: there are as many training images as
        generated ones, spread over all. The halves of the split are fewer. None, if too few.
        Rebuilt images are of the real ones that they are held against, so that their number adds
        less to their distance than it does to that of generated ones.
        """
        number = len(rebuilt)
        places = torch.linspace(0, len(learned) - 1, min(number, len(learned))).long()
        of_rebuilt = _figures(self.real, self.see(rebuilt))
        of_real = _figures(self.real, self.see(learned[places]))
        halves = self.halves()
        return {
            **{f"{name}_of_rebuilt": value for name, value in of_rebuilt.items()},
            **{f"{name}_of_real": value for name, value in of_real.items()},
            **halves,
            "images": {
                **self.numbers(number)["images"],
                "training": len(places),
                "halves": [len(self.real) // 2] * 2,
            },
        }

    def halves(self) -> dict[str, float | None]:
        """How far two halves of the real images are apart: what their number alone does."""
        number = len(self.real) // 2
        return {"frechet_of_halves": _if_enough(*(self.real[i::2][:number] for i in (0, 1)))}


def _figures(real: Float[Tensor, "N F"], other: Float[Tensor, "M F"]) -> dict[str, float | None]:
    figures: dict[str, float | None] = {
        "frechet": _if_enough(real, other),
        "kernel": kernel_distance(real, other),
    }
    if min(len(real), len(other)) > NEIGHBOURS:
        figures["precision"], figures["recall"] = precision_recall(real, other)
    return figures


def _if_enough(real: Float[Tensor, "N F"], other: Float[Tensor, "M F"]) -> float | None:
    enough = min(len(real), len(other)) > real.shape[1]
    return frechet_distance(real, other) if enough else None


def sentence(found: dict[str, Any]) -> str:
    """A Fréchet distance with all that it depends on, for the terminal."""
    images, halves = found["images"], found.get("frechet_of_halves")
    bias = "too few for halves" if halves is None else f"halves of the real ones: {halves:.2f}"
    return (
        f"Fréchet distance {found['frechet']:.2f} of {images['generated']} images to "
        f"{images['real']} real ones in {found['features']} features ({bias})"
    )

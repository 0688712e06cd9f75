"""How far generated images are from real ones, in the features of a judge that no model learned of.

N, M images   S image side   F features
"""

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ar.evaluation import FEATURES, Classifier, frechet_distance, kernel_distance
from data import Pairs
from recipes.experiment import Experiment
from recipes.judging import Judge

SEEING = ("classes", "words")
"""Judges that have a network with features."""


def check_fidelity(experiment: Experiment) -> None:
    """Refuse to measure fidelity without images, or without a network to see them with.

    Raises:
        ValueError: naming what is missing.
    """
    evaluation = experiment.evaluation
    if "fidelity" not in evaluation.tasks:
        return
    if "generation" not in evaluation.tasks:
        raise ValueError(
            "the task fidelity measures the images of generation, evaluation.tasks has "
            f"{', '.join(evaluation.tasks)}"
        )
    if evaluation.judge not in SEEING:
        raise ValueError(
            "the task fidelity sees with the network of evaluation.judge, which must be classes or "
            f"words, got {evaluation.judge}"
        )


def check_enough(experiment: Experiment, pairs: Pairs) -> None:
    """Refuse to take distances of too few images, before anything is trained for it.

    Raises:
        ValueError: with both numbers.
    """
    number = min(experiment.evaluation.generated, len(pairs))
    if "fidelity" in experiment.evaluation.tasks and number <= FEATURES:
        raise ValueError(
            f"the task fidelity needs at least {FEATURES + 1} generated images, one more than "
            f"features, got {number}"
        )


class Fidelity:
    """Distances to the real images of a split.

    Args:
        judge: with a network.
        real: the images of the split.
    """

    def __init__(self, judge: Judge, real: UInt8[Tensor, "N 3 S S"]) -> None:
        assert judge.net is not None and judge.learned is not None  # see `check_fidelity`
        self.net: Classifier = judge.net
        self.learned = judge.learned
        self.real: Float[Tensor, "N F"] = self.net.features(real)

    def of_generated(self, images: UInt8[Tensor, "M 3 S S"]) -> dict[str, float]:
        """Both distances of generated images."""
        features = self.net.features(images)
        return {
            "frechet": frechet_distance(self.real, features),
            "kernel": kernel_distance(self.real, features),
        }

    def bounds(self, rebuilt: UInt8[Tensor, "M 3 S S"]) -> dict[str, Any]:
        """What generated images can reach: that of rebuilt ones, and of other real ones.

        A Fréchet distance depends on the numbers of images: there are as many training images as
        generated ones, spread over all. The halves of the split are fewer. None, if too few.
        """
        number = len(rebuilt)
        places = torch.linspace(0, len(self.learned) - 1, min(number, len(self.learned))).long()
        other = self.net.features(self.learned[places])
        halves = self.real[::2], self.real[1::2]
        generated = self.of_generated(rebuilt)
        return {
            "frechet_of_rebuilt": generated["frechet"],
            "kernel_of_rebuilt": generated["kernel"],
            "frechet_of_real": _if_enough(self.real, other),
            "kernel_of_real": kernel_distance(self.real, other),
            "frechet_of_halves": _if_enough(*halves),
            "features": self.real.shape[1],
            "images": {
                "real": len(self.real),
                "generated": number,
                "training": len(places),
                "halves": [len(half) for half in halves],
            },
        }


def _if_enough(real: Float[Tensor, "N F"], other: Float[Tensor, "M F"]) -> float | None:
    enough = min(len(real), len(other)) > real.shape[1]
    return frechet_distance(real, other) if enough else None

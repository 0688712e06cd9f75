"""What is asked about images, and true or not: classes, the factors of scenes, or words.

N images   M images to fit on   A answers
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data import Pairs, apart, in_memory
from data.scenes import factors, load_scenes, scene
from recipes.experiment import Experiment
from recipes.tagging import common_words, tags_of

Answers = Mapping[str, Bool[Tensor, "N A"]]
"""What is true of each image, by factor."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Questions:
    """Images to fit on, and what is true of them and of those that test."""

    fit: Pairs
    fit_answers: Answers
    test_answers: Answers


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """Images to fit on, and the class of each of them and of those that test."""

    fit: Pairs
    fit_labels: Int[Tensor, "M"]
    test_labels: Int[Tensor, "N"]


def questions(experiment: Experiment, pairs: Pairs, number: int) -> Questions:
    """The factors of scenes, fitted on those of the judge; or `words`: which of the commonest words
    captions hold, fitted on training pairs.

    Args:
        experiment: of whose data.
        pairs: of the test split.
        number: of images to fit on.
    """
    if experiment.data.is_of_scenes:
        fit = load_scenes("judge", number, pairs.images.shape[-1])
        return Questions(fit=fit, fit_answers=facts(fit), test_answers=facts(pairs))
    train = training_pairs(experiment, pairs, number)
    words = common_words(train.captions)
    return Questions(
        fit=train,
        fit_answers={"words": tags_of(train.captions, words)},
        test_answers={"words": tags_of(pairs.captions, words)},
    )


def labels(experiment: Experiment, pairs: Pairs) -> Labels:
    """The classes of a labelled set, whose names are the captions.

    Raises:
        ValueError: for a class of the test split that no training image is of.
    """
    train = training_pairs(experiment, pairs, experiment.evaluation.probe_scenes)
    names = sorted({of_one[0] for of_one in train.captions})
    for name, *_ in pairs.captions:
        if name not in names:
            raise ValueError(
                f"no image of the split {experiment.data.train} that is fitted on is of the class "
                f"{name!r}"
            )
    of_fit, of_test = (
        torch.tensor([names.index(of_one[0]) for of_one in some.captions])
        for some in (train, pairs)
    )
    return Labels(fit=train, fit_labels=of_fit, test_labels=of_test)


def training_pairs(experiment: Experiment, pairs: Pairs, number: int) -> Pairs:
    """Some training pairs, as large as others and spread over the split."""
    size = pairs.images.shape[-1]
    opened = experiment.data.open_train(size)
    some = apart(opened, number)[1] if number < len(opened) else opened
    return in_memory(some, size, max_skipped=experiment.data.max_skipped)


def facts(scenes: Pairs) -> Answers:
    """What is true of scenes, whatever split they were taken from."""
    found = [factors(scene(split, int(index))) for split, index in map(_parts, scenes.keys)]
    return {name: torch.tensor([one[name] for one in found]) for name in found[0]}


def _parts(key: str) -> tuple[str, str]:
    split, _, index = key.rpartition("-")
    return split, index

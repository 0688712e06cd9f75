"""What a trunk has understood: read by linear maps from its states, by layer and prefix.

N images   K tokens   W width
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ar import ARModel
from data import Pairs, apart, in_memory
from data.scenes import factors, load_scenes, numbered_scenes
from orderer import prefix_lengths
from orderer.evaluation import readable
from orderer.sequences import ImageSequence
from recipes.experiment import Experiment
from recipes.probing import tokens_of
from recipes.tagging import common_words, tags_of

BATCH = 250

Answers = Mapping[str, Bool[Tensor, "N A"]]
"""What is true of each image, by factor."""


@torch.no_grad()
def read_from_trunk(
    experiment: Experiment, pairs: Pairs, orderer: ImageSequence, model: ARModel
) -> dict[str, dict[str, dict[str, float]]]:
    """How well each factor is read after each layer (0: the embeddings) and prefix, 0 to 1.

    The trunk reads tokens without a condition. Factors are those of scenes, or `words`: which of
    the commonest words the captions hold. Fitted on training pairs (of scenes, on those of the
    judge), tested on `pairs`.
    """
    number = experiment.evaluation.probe_scenes
    fit, fit_answers, test_answers = questions(experiment, pairs, number)
    prefixes = prefix_lengths(orderer.config.tokens)
    of_fit, of_test = (_states(tokens_of(orderer, some), model, prefixes) for some in (fit, pairs))
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in fit_answers}
    for layer in range(len(of_fit)):
        at = [
            readable(of_fit[layer][:, [i]], fit_answers, of_test[layer][:, [i]], test_answers, [1])
            for i in range(len(prefixes))
        ]
        for factor in found:
            found[factor][str(layer)] = {
                str(k): of_prefix[factor][1] for k, of_prefix in zip(prefixes, at, strict=True)
            }
    return found


def questions(experiment: Experiment, pairs: Pairs, number: int) -> tuple[Pairs, Answers, Answers]:
    """Pairs to fit on, and what is true of them and of those that test."""
    size = pairs.images.shape[-1]
    if experiment.data.is_of_scenes:
        fit = load_scenes("judge", number, size)
        return fit, _facts("judge", number), _facts(experiment.data.test, len(pairs))
    opened = experiment.data.open_train(size)
    some = apart(opened, number)[1] if number < len(opened) else opened
    train = in_memory(some, size, max_skipped=experiment.data.max_skipped)
    words = common_words(train.captions)
    return (
        train,
        {"words": tags_of(train.captions, words)},
        {"words": tags_of(pairs.captions, words)},
    )


def _facts(split: str, number: int) -> Answers:
    facts = [factors(scene) for _, scene in numbered_scenes(split, number)]
    return {name: torch.tensor([one[name] for one in facts]) for name in facts[0]}


def _states(
    tokens: Float[Tensor, "N K D"], model: ARModel, prefixes: Sequence[int]
) -> list[Float[Tensor, "N P W"]]:
    """The states after each layer, at the place that has read each prefix."""
    parts = [
        model.trunk.states(model.standardise(some), model.unconditioned(len(some)))
        for some in tokens.split(BATCH)
    ]
    places = torch.tensor(prefixes, device=tokens.device)
    return [torch.cat(layer)[:, places].float().cpu() for layer in zip(*parts, strict=True)]

"""What a trunk has understood: read from its states, by layer and prefix.

N images   K tokens   P prefixes   W width
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ar import ARModel
from data import Pairs
from orderer import prefix_lengths
from orderer.evaluation import nearest_scores, readable
from orderer.sequences import ImageSequence
from recipes.experiment import Experiment
from recipes.probing import tokens_of
from recipes.questions import questions

BATCH = 250

Read = dict[str, dict[str, dict[str, float]]]
"""How well each factor is read after each layer (0: the embeddings) and prefix; 0 is chance."""


@torch.no_grad()
def read_from_trunk(
    experiment: Experiment, pairs: Pairs, orderer: ImageSequence, model: ARModel
) -> dict[str, Read]:
    """`trunk`, what linear maps read, and `trunk_nearest`, what the nearest neighbours tell.

    The trunk reads tokens without a condition. What is asked is that of `questions`. The longest
    prefix lacks the last token: after it nothing is predicted, so that no trunk learns to read it.
    """
    number, prefixes = experiment.evaluation.probe_scenes, prefix_lengths(orderer.config.tokens - 1)
    asked = questions(experiment, pairs, number)
    of_fit, of_test = (
        _states(tokens_of(orderer, some), model, prefixes) for some in (asked.fit, pairs)
    )
    linear: Read = {factor: {} for factor in asked.fit_answers}
    nearest: Read = {factor: {} for factor in asked.fit_answers}
    for layer, (fit, test) in enumerate(zip(of_fit, of_test, strict=True)):
        for i, k in enumerate(prefixes):
            states = fit[:, [i]], asked.fit_answers, test[:, [i]], asked.test_answers
            for factor, at in readable(*states, [1]).items():
                linear[factor].setdefault(str(layer), {})[str(k)] = at[1]
            for factor, known in asked.fit_answers.items():
                true = asked.test_answers[factor]
                near = nearest_scores(fit[:, i], known, test[:, i], true).nanmean().item()
                nearest[factor].setdefault(str(layer), {})[str(k)] = near
    return {"trunk": linear, "trunk_nearest": nearest}


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

"""What frozen tokens tell of labels at each prefix: to a linear map, and to their neighbours."""

from typing import Any

import torch

from data import Pairs
from orderer import prefix_lengths
from orderer.evaluation import nearest_accuracy, nearest_scores, probed_accuracy, readable
from orderer.sequences import ImageSequence
from recipes.experiment import Experiment
from recipes.probing import tokens_of
from recipes.questions import labels, questions


@torch.no_grad()
def labels_read(experiment: Experiment, pairs: Pairs, orderer: ImageSequence) -> dict[str, Any]:
    """`linear` and `nearest`, by what is asked and by prefix.

    Of a labelled set the accuracy of `class`; of others the balanced accuracy, from 0 for chance,
    of the factors of scenes or of words.
    """
    if experiment.evaluation.judge == "classes":
        return _classes_read(experiment, pairs, orderer)
    prefixes = prefix_lengths(orderer.config.tokens)
    asked = questions(experiment, pairs, experiment.evaluation.probe_scenes)
    fit, test = (tokens_of(orderer, some).cpu() for some in (asked.fit, pairs))
    linear = readable(fit, asked.fit_answers, test, asked.test_answers, prefixes)
    found: dict[str, Any] = {"linear": {}, "nearest": {}}
    for factor, known in asked.fit_answers.items():
        found["linear"][factor] = {str(k): score for k, score in linear[factor].items()}
        found["nearest"][factor] = {}
        for k in prefixes:
            of_fit, of_test = (some[:, :k].flatten(1) for some in (fit, test))
            scores = nearest_scores(of_fit, known, of_test, asked.test_answers[factor])
            found["nearest"][factor][str(k)] = scores.nanmean().item()
    return found


def _classes_read(experiment: Experiment, pairs: Pairs, orderer: ImageSequence) -> dict[str, Any]:
    asked, prefixes = labels(experiment, pairs), prefix_lengths(orderer.config.tokens)
    fit, test = (tokens_of(orderer, some).cpu() for some in (asked.fit, pairs))
    found: dict[str, Any] = {"linear": {"class": {}}, "nearest": {"class": {}}}
    for k in prefixes:
        of_fit, of_test = (some[:, :k].flatten(1) for some in (fit, test))
        for name, accuracy in (("linear", probed_accuracy), ("nearest", nearest_accuracy)):
            found[name]["class"][str(k)] = accuracy(
                of_fit, asked.fit_labels, of_test, asked.test_labels
            )
    return found

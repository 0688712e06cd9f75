"""How the figures of an evaluation were taken, to stand beside them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ar.model import NOISE_FLOOR
from data import Pairs
from orderer import OrdererConfig
from orderer.evaluation.bootstrap import DRAWS, LEVEL
from orderer.evaluation.nearest import NEIGHBOURS
from orderer.sequences import SequenceConfig
from recipes.engine.settings import plain_settings
from recipes.evaluation_settings import DRAWN
from recipes.experiment import Experiment
from recipes.guidance import samplings
from recipes.judging import Judge
from recipes.rating import LARGEST, STRETCHES
from recipes.reading import about_strings
from recipes.rebuilding import Eyes
from recipes.searching import about_searches

ALIKE = ("split", "dtype", "ties", "rate", "judge", "features", "perceptual")
"""Of a protocol: what runs that are compared must have in common."""


OF_IMAGES = frozenset({"retrieval", "classification", "reconstruction"})
"""Tasks whose figures have intervals over images."""


def protocol(
    experiment: Experiment,
    pairs: Pairs,
    unseen: Pairs,
    judge: Judge | None,
    eyes: Eyes,
    config: OrdererConfig | SequenceConfig,
) -> dict[str, Any]:
    """How the figures were taken; null where a task that was not asked would have its own."""
    evaluation, tasks = experiment.evaluation, experiment.evaluation.tasks
    is_drawn = not DRAWN.isdisjoint(tasks)
    generated = min(evaluation.generated, len(unseen)) if is_drawn else None
    return {
        "tasks": list(tasks),
        "split": experiment.data.test,
        **_counts(pairs),
        "unseen": {"split": experiment.data.unseen or experiment.data.test, **_counts(unseen)},
        "queries": experiment.evaluation.captions,
        "templates": list(experiment.data.templates),
        "tuning_count": experiment.data.tuning_count,
        "generated": generated,
        "decoder": decoding(config),
        "probe": _probing(experiment) if "probe" in tasks else None,
        "factors": _reading(experiment) if "factors" in tasks else None,
        "dtype": "models in float32, scores in float64, images in uint8",
        "ties": about_ties(),
        "intervals": about_intervals() if OF_IMAGES.intersection(tasks) else None,
        "rerank": experiment.evaluation.rerank,  # of retrieval.reranked; the rest knows of none
        "sampling": plain_settings(experiment.sampling),
        "guidance": list(samplings(experiment)) if is_drawn else None,
        "search": about_searches() if "search" in tasks else None,
        "likelihood": _scoring(experiment, pairs) if "likelihood" in tasks else None,
        "rate": _rating(experiment, pairs) if "rate" in tasks else None,
        "trunk": _asking(experiment, config.image_size) if "trunk" in tasks else None,
        "labels": _labelling(experiment, config.image_size) if "labels" in tasks else None,
        "strings": about_strings(experiment, pairs) if "strings" in tasks else None,
        "judge": judge.about if judge else None,
        "features": eyes.space.protocol() if eyes.space else None,
        "perceptual": eyes.teacher.weights if eyes.teacher else None,
        "seeds": [experiment.seed],
    }


def about_ties() -> str:
    """How equal scores were ranked."""
    return "expected rank over random orders of equal scores; counted in retrieval.ties"


def about_intervals() -> str:
    """How the intervals over images were taken."""
    return (
        f"{LEVEL:.0%} of {DRAWS} draws of as many images, each with its captions, the gallery "
        "unchanged; percentiles, seed 0"
    )


def shared_protocol(folders: Iterable[Path]) -> dict[str, Any]:
    """How all runs of a comparison were measured; where they differ, how each was, by its name.

    Raises:
        ValueError: if they differ in what makes figures of one kind comparable: one was measured by
            an older version, say.
    """
    protocols = {
        folder.name: json.loads((folder / "evaluation.json").read_text())["protocol"]
        for folder in folders
    }
    first_run, first = next(iter(protocols.items()))
    for run, each in protocols.items():
        for name in ALIKE:
            if each.get(name) != first.get(name):
                raise ValueError(
                    f"{run} was measured otherwise than {first_run}: {name} is {each.get(name)}, "
                    f"not {first.get(name)}; remove its evaluation.json to measure it anew"
                )
    return {
        name: value
        if all(each.get(name) == value for each in protocols.values())
        else {run: each.get(name) for run, each in protocols.items()}
        for name, value in first.items()
    }


def decoding(config: OrdererConfig | SequenceConfig) -> dict[str, Any]:
    """How tokens become images."""
    if isinstance(config, SequenceConfig):
        return {"kind": "fixed", **config.own()}
    if config.decoder != "flow":
        return {"kind": config.decoder}
    return {
        "kind": config.decoder,
        "solver": config.decoder_solver,
        "steps": config.decoder_steps,
        "guidance_scale": config.decoder_guidance,
    }


def _scoring(experiment: Experiment, pairs: Pairs) -> dict[str, Any]:
    """How the likelihood was taken."""
    return {
        "images": min(experiment.evaluation.scored, len(pairs)),
        "noise_floor": NOISE_FLOOR,
        "unit": "nats for each dimension of the orderer's tokens with that noise, in what the AR "
        "model divides each channel by, on them",
    }


def _rating(experiment: Experiment, pairs: Pairs) -> dict[str, Any]:
    """How nats and decibels were taken."""
    return {
        "images": min(experiment.evaluation.scored, len(pairs)),
        "unit": "nats of all tokens of an image, an upper bound (variational diffusion), given its "
        "caption; noise in what the AR model scales each channel by",
        "guesses": "the AR model's, or those for standard normal tokens where they are nearer, "
        f"in each of {STRETCHES} stretches of noise levels",
        "rebuilt": "from noisy tokens, or from what a Gaussian of all tokens together guesses from "
        f"them, where that is nearer; fitted to {experiment.evaluation.probe_scenes} training "
        f"images at most; of more than {LARGEST} values in all each token is guessed by itself",
    }


def _labelling(experiment: Experiment, size: int) -> dict[str, Any]:
    """How labels were read from tokens."""
    asked = _asking(experiment, size)
    if experiment.evaluation.judge != "classes":
        return asked
    return {
        **asked,
        "score": "accuracy; the ridge of the linear map chosen on a tenth of the images",
    }


def _asking(experiment: Experiment, size: int) -> dict[str, Any]:
    """What linear maps were fitted on, and neighbours found among; damaged images are not there."""
    drawn, number = experiment.data.is_of_scenes, experiment.evaluation.probe_scenes
    return {
        "fit": "judge" if drawn else experiment.data.train,
        "images": number if drawn else min(number, len(experiment.data.open_train(size))),
        "score": "balanced accuracy, 0 chance and 1 always right, the mean over questions",
        "neighbours": NEIGHBOURS,
    }


def _probing(experiment: Experiment) -> dict[str, Any]:
    """How the fresh readers were trained."""
    training = experiment.train_orderer
    return {
        "steps": experiment.evaluation.probe_steps,
        "batch_size": training.batch_size,
        "optim": plain_settings(training.optim),
        "split": experiment.data.train,
        "train_count": experiment.data.train_count,
        "seed": experiment.seed,
    }


def _reading(experiment: Experiment) -> dict[str, Any]:
    """Which scenes the linear maps were fitted on; see `factors_read`."""
    return {"fit": {"split": "judge", "scenes": experiment.evaluation.probe_scenes}}


def _counts(pairs: Pairs) -> dict[str, Any]:
    return {
        "images": len(pairs),
        "captions": sum(map(len, pairs.captions)),
        "skipped": pairs.skipped,
        "dataset": pairs.fingerprint,
    }

"""Judges of generated images: what each experiment trusts to say what a picture shows."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from ar.evaluation import (
    Classifier,
    SceneJudge,
    accuracy,
    chance_of,
    classifier,
    fitting,
    following,
    scene_judge,
    tag_precision,
    tagger,
    train_classifier,
    train_judge,
    train_tagger,
)
from data import Pairs, in_memory, is_of_scenes
from data.scenes import COLOURS, SHAPES, Scene, load_scenes, numbered_scenes
from orderer import Orderer, OrdererProcessor
from orderer.evaluation import retrieval_metrics
from recipes.data_settings import TUNING
from recipes.experiment import Experiment
from recipes.tagging import common_words, tags_of
from recipes.trained_once import trained_once

CODE = tuple(map(inspect.getsource, (classifier, fitting, scene_judge, tagger)))
"""By which judges are trained: of other code they are others."""
SEED = 0
"""Of every judge, whatever the experiment's: runs with other seeds are judged by the same one."""


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Scores images, the first of which was drawn for the first caption, and so on."""

    about: str
    """Who judges, for the protocol."""
    score: Callable[[UInt8[Tensor, "N 3 S S"]], dict[str, float]]
    chance: Mapping[str, float] = field(default_factory=dict)
    """What images get of which nothing is seen, where it is known."""
    net: Classifier | SceneJudge | None = None
    """In whose features distances can be taken; the orderer's own retrieval has none."""
    learned: UInt8[Tensor, "N 3 S S"] | None = None
    """The images that it was trained on."""


def make_judge(
    experiment: Experiment,
    pairs: Pairs,
    captions: Sequence[str],
    orderer: Orderer,
    processor: OrdererProcessor,
) -> Judge:
    """Train, on real images that are never generated from, the judge that an experiment asks for.

    Args:
        experiment: names the judge.
        pairs: those whose captions are generated from.
        captions: of the images to judge, in their order.
        orderer: judges by its own retrieval where no other judge can.
        processor: reads captions for that orderer.

    Raises:
        ValueError: if the data do not suit the judge.
    """
    check_judge(experiment)
    match experiment.evaluation.judge:
        case "scenes":
            return _scene_judge(experiment, pairs, len(captions))
        case "classes":
            return _class_judge(experiment, pairs, captions)
        case "words":
            return _word_judge(experiment, pairs, captions)
        case "retrieval":
            return _retrieval_judge(captions, orderer, processor)


def judges_of(experiment: Experiment) -> Path:
    """Where the judges of an experiment are left, once they are trained."""
    return experiment.evaluation.judges or experiment.out / "judges"


def check_judge(experiment: Experiment) -> None:
    """Refuse to judge anything but scenes by what is known of scenes."""
    source = experiment.data.source
    if experiment.evaluation.judge == "scenes" and not is_of_scenes(source):
        raise ValueError(
            "evaluation.judge must be classes, words or retrieval for data from "
            f"{', '.join(source)}, got scenes"
        )
    said = experiment.data.unseen or experiment.data.test
    if experiment.evaluation.judge == "scenes" and said == TUNING:
        raise ValueError(
            f"the judge of scenes knows no scene of the split {TUNING}: data.unseen must name a "
            f"split of scenes, got {experiment.data.unseen}"
        )


def _scene_judge(experiment: Experiment, pairs: Pairs, number: int) -> Judge:
    number_seen = experiment.evaluation.judge_scenes
    train = load_scenes("judge", number_seen, pairs.images.shape[-1])
    things = [_things(scene) for _, scene in numbered_scenes("judge", number_seen)]
    sorts, steps = (
        {"shapes": len(SHAPES), "colours": len(COLOURS)},
        experiment.evaluation.judge_steps,
    )
    judge = trained_once(
        judges_of(experiment),
        make=partial(SceneJudge, **sorts),
        train=partial(train_judge, train.images, things, **sorts, steps=steps, seed=SEED),
        on=(train.images, things, steps, SEED, CODE),
    )
    said = [
        _things(scene)
        for _, scene in numbered_scenes(experiment.data.unseen or experiment.data.test, number)
    ]
    about = (
        f"a small network trained on {len(train)} real scenes, of all colour-shape pairs, says "
        "what stands at each place; a figure is the overlap of the objects seen and said, divided "
        "by the larger number of the two; scene: all of it is right"
    )
    return Judge(
        about=about,
        score=lambda images: following(judge.see(images), said),
        net=judge,
        learned=train.images,
    )


def _things(scene: Scene) -> list[tuple[int, int, int]]:
    colours = list(COLOURS)
    return [(SHAPES.index(o.shape), colours.index(o.colour), o.place) for o in scene.objects]


def _class_judge(experiment: Experiment, pairs: Pairs, captions: Sequence[str]) -> Judge:
    train = _training_pairs(experiment, pairs)
    names = sorted({of_one[0] for of_one in train.captions})
    labels = torch.tensor([names.index(of_one[0]) for of_one in train.captions])
    for caption in captions:
        if caption not in names:
            raise ValueError(
                f"the judge of classes is asked for {caption!r}, but the captions of the split "
                f"{experiment.data.train} are {', '.join(names[:10])}{', ...' * (len(names) > 10)}"
            )
    wanted = torch.tensor([names.index(caption) for caption in captions])
    classes, steps = len(names), experiment.evaluation.judge_steps
    net = trained_once(
        judges_of(experiment),
        make=partial(Classifier, classes),
        train=partial(train_classifier, train.images, labels, classes, steps=steps, seed=SEED),
        on=("classes", train.images, labels, classes, steps, SEED, CODE),
    )
    return Judge(
        about=f"a small network trained on {len(train)} real images tells {len(names)} classes",
        score=lambda images: {"class": accuracy(net, images, wanted)},
        chance={"class": 1 / classes},
        net=net,
        learned=train.images,
    )


def _word_judge(experiment: Experiment, pairs: Pairs, captions: Sequence[str]) -> Judge:
    train = _training_pairs(experiment, pairs)
    words = common_words(train.captions)
    tags, steps = tags_of(train.captions, words), experiment.evaluation.judge_steps
    net = trained_once(
        judges_of(experiment),
        make=partial(Classifier, len(words)),
        train=partial(train_tagger, train.images, tags, steps=steps, seed=SEED),
        on=("words", train.images, tags, steps, SEED, CODE),
    )
    wanted = tags_of([[caption] for caption in captions], words)
    about = (
        f"a small network trained on {len(train)} real images says which of {len(words)} words fit "
        "an image; words: how high it ranks the images whose one caption, from which they are "
        "drawn, has a word, mean average precision"
    )
    return Judge(
        about=about,
        score=lambda images: {"words": tag_precision(net, images, wanted)},
        chance={"words": chance_of(wanted)},
        net=net,
        learned=train.images,
    )


def _training_pairs(experiment: Experiment, pairs: Pairs) -> Pairs:
    """What stage 1 learned from, as large as the pairs to judge; nothing set apart for tuning."""
    size = pairs.images.shape[-1]
    opened = experiment.data.open_train(size)
    return in_memory(opened, size, max_skipped=experiment.data.max_skipped)


def learned_images(experiment: Experiment, pairs: Pairs, judge: Judge) -> UInt8[Tensor, "N 3 S S"]:
    """Real images that none is generated for: those of the judge, or of the training split."""
    known = judge.learned
    return known if known is not None else _training_pairs(experiment, pairs).images


def _retrieval_judge(
    captions: Sequence[str], orderer: Orderer, processor: OrdererProcessor
) -> Judge:
    texts = orderer.embed_texts(processor.text(captions).to(orderer.device)).cpu()
    owner = torch.arange(len(captions))

    def score(images: Tensor) -> dict[str, float]:
        embeddings = orderer.embed_images(images.to(orderer.device)).cpu()
        found = retrieval_metrics(embeddings, texts, owner)["text_to_image"]
        return {"found_at_1": found["r1"], "found_at_10": found["r10"]}

    about = f"stage 1's own retrieval of each image by its caption, among {len(captions)}"
    chance = {f"found_at_{k}": min(k / len(captions), 1.0) for k in (1, 10)}
    return Judge(about=about, score=score, chance=chance)

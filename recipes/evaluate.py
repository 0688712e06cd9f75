r"""Measure what an experiment has trained, on its test split and, where it has one, its unseen one.

    python -m recipes.evaluate retrieval reconstruction generation --out=runs/demo
    python -m recipes.evaluate retrieval probe --config recipes/configs/flickr8k.yaml \
        --data.source='[FOLDER]'

Reads OUT/orderer and OUT/ar, and OUT/joint where stage 3 has been. Without a task it does the first
three of

    retrieval       images and captions find each other, at every prefix
    reconstruction  error of images from each prefix; where each token helps
    generation      images from captions, and what a judge says of them
    fidelity        beside either: distances to real images, precision and recall, in
                    `--evaluation.features`: those of the judge, of a tower or of Inception
    completion      images drawn from the first 1, 2, 4, ... of their own tokens on: where drawing
                    goes wrong, and which tokens guidance reaches
    search          draws many images for a caption and keeps the best: quality against budget
    classification  of labelled sets, by captions of the classes
    labels          a linear map and the nearest neighbours tell classes or words from frozen tokens
    captioning      captions that the models write
    probe           a fresh reader on frozen tokens: what is in them, whatever the own one finds
    factors         linear maps read scenes from each prefix
    strings         a small network reads strings, from tokens and from codes of them
    likelihood      of test tokens
    rate            what tokens cost (nats), and what they are good for (dB); looks at training
                    images, too
    trunk           linear maps and the nearest neighbours read the AR model's states
    order           how even its positions are, and how early its tokens say what captions do

Writes OUT/evaluation.json (figures and their protocol) and OUT/pictures. On 2 CPU cores the default
takes about a minute.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ar import ARModel
from data import Pairs, is_of_scenes
from orderer import Orderer, OrdererProcessor
from orderer.evaluation import retrieval_metrics
from orderer.sequences import ImageSequence, load_sequence
from recipes.caption_quality import written_by_ar, written_by_orderer, written_from_prefixes
from recipes.checking import check_fusion, check_learned
from recipes.classifying import classification
from recipes.completion import check_completes, completion
from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.processes import seed_everything
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings
from recipes.engine.training import prepare_alone
from recipes.evaluation_settings import DRAWN
from recipes.experiment import Experiment
from recipes.feature_space import JUDGE, check_apart
from recipes.fidelity import DISTANT, Fidelity, check_enough, check_fidelity, make_space
from recipes.finding import embed_captions, embeddings_at_prefixes, find_at_prefixes
from recipes.generation import Drawer, generation, prompts
from recipes.guidance import samplings
from recipes.judging import Judge, make_judge
from recipes.labelling import labels_read
from recipes.likelihood import densities, likelihood
from recipes.order_quality import order_quality
from recipes.probing import factors_read, fresh_reader, tokens_of
from recipes.protocol import protocol
from recipes.questions import training_pairs
from recipes.rating import rates
from recipes.reading import strings_read
from recipes.rebuilding import Eyes, make_teacher, reconstruction
from recipes.reranking import rerank_at_prefixes
from recipes.searching import quality_by_budget
from recipes.training_record import check_set_apart, digest_of_record, read_record
from recipes.trunk_probing import read_from_trunk

OF_AR_MODELS = DRAWN | {"likelihood", "rate", "trunk", "order"}
"""Tasks that ask an AR model."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """What all models of an experiment are measured with."""

    experiment: Experiment
    pairs: Pairs
    """Of the test split."""
    unseen: Pairs
    """Whose captions are drawn."""
    judge: Judge | None
    eyes: Eyes


@torch.no_grad()
def main(experiment: Experiment) -> None:
    """Measure each pair of models and write the figures."""
    experiment.check_is_done()
    device = prepare_alone()
    seed_everything(experiment.seed, rank=0)
    check_tasks(experiment)
    folders = {"separate": experiment.out}
    if (experiment.out / "joint" / "orderer").is_dir():
        folders["joint"] = experiment.out / "joint"
    first = _load(experiment.out, device)
    config = first[0].config
    check_learned(experiment, config)
    for folder in folders.values():
        check_set_apart(experiment, folder / "orderer", config.image_size)
    models = load_models(experiment, folders, first[0])
    measures = prepare(experiment, *first)
    results, orderers = {}, {}
    for name, folder in folders.items():
        pair = _load(folder, device)
        orderers[name] = _origin(folder, pair[0])
        model = models[name].to(device).eval() if name in models else None
        results[name] = measured(measures, *pair, model, experiment.out / "pictures" / name)
    about = protocol(
        experiment, measures.pairs, measures.unseen, measures.judge, measures.eyes, config
    )
    write_result(
        experiment.out / "evaluation.json",
        "evaluation",
        {
            "results": results,
            "orderers": orderers,
            "protocol": about,
            "config": plain_settings(experiment),
            "seeds": [experiment.seed],
            **provenance(),
        },
    )


def check_tasks(experiment: Experiment) -> None:
    """Refuse tasks that do not suit the data."""
    tasks, source = experiment.evaluation.tasks, ", ".join(experiment.data.source)
    if "factors" in tasks and not is_of_scenes(experiment.data.source):
        raise ValueError(f"the task factors is for scenes, got data from {source}")
    if "strings" in tasks and source != "strings":
        raise ValueError(f"the task strings is for strings, got data from {source}")
    check_fidelity(experiment)


def load_models(
    experiment: Experiment, folders: Mapping[str, Path], orderer: ImageSequence
) -> dict[str, ARModel]:
    """The AR models that the tasks need, by the names of their folders.

    Raises:
        ValueError: if the first is of another orderer, or a task asks what no model can do.
    """
    tasks = experiment.evaluation.tasks
    may_write = "captioning" in tasks and (experiment.out / "ar").is_dir()
    models = {}
    if may_write or not OF_AR_MODELS.isdisjoint(tasks):
        models = {name: ARModel.from_pretrained(each / "ar") for name, each in folders.items()}
        models["separate"].check_orderer(orderer.encoding_hash())
        if "completion" in tasks:
            check_completes(models["separate"])
        for sampling in samplings(experiment).values() if not DRAWN.isdisjoint(tasks) else ():
            models["separate"].check_sampling(sampling)
    ar_writes = any(model.config.writes for model in models.values())
    check_fusion(experiment, orderer.config, ar_writes)
    return models


def prepare(experiment: Experiment, orderer: Orderer, processor: OrdererProcessor) -> Measures:
    """Read the splits and train the judge, once for all models."""
    tasks, config = experiment.evaluation.tasks, orderer.config
    pairs = experiment.data.open_test(config.image_size)
    unseen = experiment.data.open_unseen(config.image_size)
    check_enough(experiment, unseen)
    check_apart(experiment.evaluation.features, config)
    is_compared = "fidelity" in tasks
    judge = None
    if not DRAWN.isdisjoint(tasks) or (is_compared and experiment.evaluation.features == JUDGE):
        judge = make_judge(experiment, unseen, prompts(experiment, unseen), orderer, processor)
    eyes = Eyes(
        space=make_space(experiment, judge, orderer.device) if is_compared else None,
        teacher=make_teacher(experiment, orderer),
    )
    return Measures(experiment=experiment, pairs=pairs, unseen=unseen, judge=judge, eyes=eyes)


def measured(
    measures: Measures,
    orderer: Orderer,
    processor: OrdererProcessor,
    model: ARModel | None,
    shown: Path,
) -> dict[str, Any]:
    """All that is asked of one pair of models; pictures go to the folder `shown`."""
    experiment, tasks = measures.experiment, measures.experiment.evaluation.tasks
    pairs, unseen, eyes = measures.pairs, measures.unseen, measures.eyes
    if eyes.space:
        eyes.space.check_not_of(orderer)
    found = understanding(experiment, pairs, orderer, processor, model, eyes, shown)
    if "probe" in tasks:
        found["probe"] = probe(experiment, pairs, orderer, processor)
    if "labels" in tasks:
        found["labels"] = labels_read(experiment, pairs, orderer)
    if "factors" in tasks:
        found["factors"] = factors_read(orderer, experiment.evaluation.probe_scenes, pairs)
    if "strings" in tasks:
        found["strings"] = strings_read(experiment, pairs, orderer, shown)
    if experiment.data.unseen is not None:
        beside = shown / "unseen"
        found["unseen"] = understanding(experiment, unseen, orderer, processor, model, eyes, beside)
    if model is not None:
        model.check_orderer(orderer.encoding_hash())
        drawer = Drawer(experiment=experiment, orderer=orderer, processor=processor, model=model)
        found |= known(drawer, pairs) | drawn(drawer, measures, shown)
    return found


def known(drawer: Drawer, pairs: Pairs) -> dict[str, Any]:
    """What the AR model knows of real tokens, as far as it is asked."""
    experiment, tasks = drawer.experiment, drawer.experiment.evaluation.tasks
    model, orderer, processor = drawer.model, drawer.orderer, drawer.processor
    captions = prompts(experiment, pairs, experiment.evaluation.scored)
    found: dict[str, Any] = {}
    nats = None
    if not {"likelihood", "order"}.isdisjoint(tasks):
        nats = densities(tokens_of(orderer, pairs), captions, model, orderer, processor)
    if "likelihood" in tasks:
        found["likelihood"] = None if nats is None else likelihood(nats, model.config.token_dim)
    if "rate" in tasks:
        fit = training_pairs(experiment, pairs, experiment.evaluation.probe_scenes)
        tokens = tokens_of(orderer, fit), tokens_of(orderer, pairs)
        found["rate"] = rates(*tokens, pairs.images, captions, model, orderer, processor)
    if "trunk" in tasks:
        found |= read_from_trunk(experiment, pairs, orderer, model)
    if "order" in tasks:
        found["order_quality"] = order_quality(experiment, pairs, nats, orderer, model)
    return found


def drawn(drawer: Drawer, measures: Measures, folder: Path) -> dict[str, Any]:
    """What the AR model draws from captions, as far as it is asked."""
    tasks, judge, unseen = drawer.experiment.evaluation.tasks, measures.judge, measures.unseen
    found: dict[str, Any] = {}
    if judge is None:
        return found
    space = measures.eyes.space
    fidelity = Fidelity(space, unseen.images) if space and not DISTANT.isdisjoint(tasks) else None
    if "generation" in tasks:
        found["generation"] = generation(drawer, unseen, judge, fidelity, folder)
    if "completion" in tasks:
        found["completion"] = completion(drawer, unseen, judge, fidelity)
    if "search" in tasks:
        captions = prompts(drawer.experiment, unseen)
        found["search"] = quality_by_budget(drawer, captions, judge, folder)
    return found


def understanding(
    experiment: Experiment,
    pairs: Pairs,
    orderer: Orderer,
    processor: OrdererProcessor,
    model: ARModel | None,
    eyes: Eyes,
    folder: Path,
) -> dict[str, Any]:
    """What the models know of a split: retrieval, reconstruction and captioning, as asked."""
    tasks = experiment.evaluation.tasks
    tokens = tokens_of(orderer, pairs)
    found: dict[str, Any] = {}
    if "retrieval" in tasks:
        found["retrieval"] = retrieval(experiment, pairs, orderer, processor, tokens)
    if "classification" in tasks:
        at = embeddings_at_prefixes(tokens, orderer.readout)
        say = partial(embed_captions, text=orderer.text, processor=processor, device=tokens.device)
        found["classification"] = classification(pairs.captions, experiment.data.templates, at, say)
    if "captioning" in tasks:
        writers = {}
        if isinstance(orderer, Orderer) and orderer.config.fusion_layers is not None:
            writers["captioning"] = written_by_orderer(orderer)
        if model is not None and model.config.writes:
            writers["captioning_by_ar"] = written_by_ar(model)
        for name, writer in writers.items():
            found[name] = written_from_prefixes(experiment, pairs, tokens, writer, processor)
    if "reconstruction" in tasks:
        found |= reconstruction(pairs.images, orderer, tokens, eyes, folder)
    return found


def retrieval(
    experiment: Experiment,
    pairs: Pairs,
    orderer: Orderer,
    processor: OrdererProcessor,
    tokens: Tensor,
) -> dict[str, Any]:
    """Both directions at every prefix; by shorter captions, text to image from all tokens."""
    found = find_at_prefixes(experiment, pairs, tokens, orderer.readout, orderer.text, processor)
    if experiment.evaluation.rerank:
        found["reranked"] = rerank_at_prefixes(experiment, pairs, tokens, orderer, processor)
    if experiment.evaluation.captions == "last":
        whole = orderer.embed_tokens(tokens)[:, -1].cpu()  # [N, E]
        found["shorter_captions"] = {}
        for place in range(min(map(len, pairs.captions)) - 1):
            said = [of_one[place] for of_one in pairs.captions]
            texts = embed_captions(said, orderer.text, processor, tokens.device)
            one = retrieval_metrics(whole, texts, torch.arange(len(pairs)))
            found["shorter_captions"][str(place)] = one["text_to_image"]
    return found


def probe(
    experiment: Experiment, pairs: Pairs, orderer: Orderer, processor: OrdererProcessor
) -> dict[str, Any]:
    """What a fresh reader finds in the tokens."""
    reader = fresh_reader(experiment, orderer, processor)
    tokens = tokens_of(orderer, pairs)
    return find_at_prefixes(experiment, pairs, tokens, reader.readout, reader.text, processor)


def _origin(folder: Path, orderer: Orderer) -> dict[str, str | None]:
    """Which orderer was measured, for the result file."""
    origin = orderer.saved.origin() if orderer.saved else {}
    record = digest_of_record(read_record(folder / "orderer"))
    return {**origin, "encoding_hash": orderer.encoding_hash(), "training_sha256": record}


def _load(folder: Path, device: torch.device) -> tuple[Orderer, OrdererProcessor]:
    """An orderer, or the fixed order that stands for one."""
    orderer = cast(Orderer, load_sequence(folder / "orderer"))  # see `check_learned`
    return orderer.to(device), OrdererProcessor.from_pretrained(folder / "orderer")


def with_tasks(arguments: Sequence[str]) -> list[str]:
    """Read leading words as the tasks."""
    return with_words(arguments, "evaluation.tasks")


if __name__ == "__main__":
    start(main, Experiment, with_tasks(sys.argv[1:]))

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
    search          draws many images for a caption and keeps the best: quality against budget
    classification  of labelled sets, by captions of the classes
    labels          a linear map and the nearest neighbours tell classes or words from frozen tokens
    captioning      captions that the models write
    probe           a fresh reader on frozen tokens: what is in them, whatever the own one finds
    factors         linear maps read scenes from each prefix
    strings         a small network reads strings, from tokens and from codes of them
    likelihood      of test tokens
    rate            what tokens cost (nats), and what they are good for (dB)
    trunk           linear maps and the nearest neighbours read the AR model's states
    order           how even its positions are, and how early its tokens say what captions do

Writes OUT/evaluation.json (figures and their protocol) and OUT/pictures. On 2 CPU cores the default
takes about a minute.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ar import ARModel
from data import Pairs, is_of_scenes
from orderer import Orderer, OrdererProcessor
from orderer.evaluation import retrieval_metrics
from orderer.sequences import load_sequence
from recipes.caption_quality import written_by_ar, written_by_orderer, written_from_prefixes
from recipes.checking import check_fusion, check_learned
from recipes.classifying import classification
from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.processes import seed_everything
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings
from recipes.engine.training import prepare_device
from recipes.experiment import Experiment
from recipes.feature_space import JUDGE, check_apart
from recipes.fidelity import check_enough, check_fidelity, make_space
from recipes.finding import embed_captions, embeddings_at_prefixes, find_at_prefixes
from recipes.generation import Drawer, generation, said
from recipes.judging import Judge, make_judge
from recipes.labelling import labels_read
from recipes.likelihood import densities, likelihood
from recipes.order_quality import order_quality
from recipes.probing import factors_read, fresh_reader, tokens_of
from recipes.protocol import protocol
from recipes.rating import rates
from recipes.reading import strings_read
from recipes.rebuilding import Eyes, make_teacher, reconstruction
from recipes.reranking import rerank_at_prefixes
from recipes.searching import quality_by_budget
from recipes.training_record import check_set_apart, digest_of_record, read_record
from recipes.trunk_probing import read_from_trunk


@torch.no_grad()
def main(experiment: Experiment) -> None:
    """Measure each pair of models and write the figures."""
    device = prepare_device()
    seed_everything(experiment.seed, rank=0)
    tasks = experiment.evaluation.tasks
    source = ", ".join(experiment.data.source)
    if "factors" in tasks and not is_of_scenes(experiment.data.source):
        raise ValueError(f"the task factors is for scenes, got data from {source}")
    if "strings" in tasks and source != "strings":
        raise ValueError(f"the task strings is for strings, got data from {source}")
    check_fidelity(experiment)
    folders = {"separate": experiment.out}
    if (experiment.out / "joint" / "orderer").is_dir():
        folders["joint"] = experiment.out / "joint"
    first = _load(experiment.out, device)
    check_learned(experiment, first[0].config)
    for folder in folders.values():
        check_set_apart(experiment, folder / "orderer", first[0].config.image_size)
    models = {}
    judged = not {"generation", "search"}.isdisjoint(tasks)
    may_write = "captioning" in tasks and (experiment.out / "ar").is_dir()
    if judged or may_write or not {"likelihood", "rate", "trunk", "order"}.isdisjoint(tasks):
        models = {name: ARModel.from_pretrained(each / "ar") for name, each in folders.items()}
        models["separate"].check_orderer(first[0].encoding_hash())
    ar_writes = any(model.config.writes for model in models.values())
    check_fusion(experiment, first[0].config, ar_writes)
    pairs = experiment.data.open_test(first[0].config.image_size)
    unseen = experiment.data.open_unseen(first[0].config.image_size)
    check_enough(experiment, unseen)
    check_apart(experiment.evaluation.features, first[0].config)
    is_compared = "fidelity" in tasks
    judge = None
    if judged or (is_compared and experiment.evaluation.features == JUDGE):
        judge = make_judge(experiment, unseen, said(experiment, unseen), *first)
    eyes = Eyes(
        space=make_space(experiment, judge, device) if is_compared else None,
        teacher=make_teacher(experiment, experiment.out / "orderer"),
    )

    results: dict[str, Any] = {}
    orderers: dict[str, Any] = {}
    for name, folder in folders.items():
        orderer, processor = _load(folder, device)
        origin = orderer.saved.origin() if orderer.saved else {}
        record = digest_of_record(read_record(folder / "orderer"))
        orderers[name] = {
            **origin,
            "encoding_hash": orderer.encoding_hash(),
            "training_sha256": record,
        }
        if eyes.space:
            eyes.space.check_not_of(orderer)
        shown = experiment.out / "pictures" / name
        model = models[name].to(device).eval() if name in models else None
        found = understanding(experiment, pairs, orderer, processor, model, eyes, shown)
        if "probe" in tasks:
            found["probe"] = probe(experiment, pairs, orderer, processor)
        if "labels" in tasks:
            found["labels"] = labels_read(experiment, pairs, orderer)
        if "factors" in tasks:
            found["factors"] = factors_read(orderer, experiment.evaluation.probe_scenes)
        if "strings" in tasks:
            found["strings"] = strings_read(experiment, pairs, orderer, shown)
        if experiment.data.unseen is not None:
            beside = experiment.out / "pictures" / name / "unseen"
            found["unseen"] = understanding(
                experiment, unseen, orderer, processor, model, eyes, beside
            )
        if model is not None:
            model.check_orderer(orderer.encoding_hash())
            drawer = Drawer(
                experiment=experiment, orderer=orderer, processor=processor, model=model
            )
            found |= generating(drawer, pairs, unseen, judge, eyes, shown)
        results[name] = found
    write_result(
        experiment.out / "evaluation.json",
        "evaluation",
        {
            "results": results,
            "orderers": orderers,
            "protocol": protocol(experiment, pairs, unseen, judge, eyes, first[0].config),
            "config": plain_settings(experiment),
            "seeds": [experiment.seed],
            **provenance(),
        },
    )


def generating(
    drawer: Drawer,
    pairs: Pairs,
    unseen: Pairs,
    judge: Judge | None,
    eyes: Eyes,
    folder: Path,
) -> dict[str, Any]:
    """What the AR model knows of real tokens, and draws from captions, as far as it is asked."""
    experiment, tasks = drawer.experiment, drawer.experiment.evaluation.tasks
    found: dict[str, Any] = {}
    pair = drawer.model, drawer.orderer, drawer.processor
    captions = said(experiment, pairs, experiment.evaluation.scored)
    known = None
    if not {"likelihood", "order"}.isdisjoint(tasks):
        known = densities(tokens_of(drawer.orderer, pairs), captions, *pair)
    if "likelihood" in tasks:
        channels = drawer.model.config.token_dim
        found["likelihood"] = None if known is None else likelihood(known, channels)
    if "rate" in tasks:
        tokens = tokens_of(drawer.orderer, pairs)
        found["rate"] = rates(tokens, pairs.images, captions, *pair)
    if "trunk" in tasks:
        found |= read_from_trunk(experiment, pairs, drawer.orderer, drawer.model)
    if "order" in tasks:
        found["order_quality"] = order_quality(
            experiment, pairs, known, drawer.orderer, drawer.model
        )
    if judge is not None and "generation" in tasks:
        found["generation"] = generation(drawer, unseen, judge, eyes.space, folder)
    if judge is not None and "search" in tasks:
        found["search"] = quality_by_budget(drawer, said(experiment, unseen), judge, folder)
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


def _load(folder: Path, device: torch.device) -> tuple[Orderer, OrdererProcessor]:
    """An orderer, or the fixed order that stands for one."""
    orderer = cast(Orderer, load_sequence(folder / "orderer"))  # see `check_learned`
    return orderer.to(device), OrdererProcessor.from_pretrained(folder / "orderer")


def with_tasks(arguments: Sequence[str]) -> list[str]:
    """Read leading words as the tasks."""
    return with_words(arguments, "evaluation.tasks")


if __name__ == "__main__":
    start(main, Experiment, with_tasks(sys.argv[1:]))

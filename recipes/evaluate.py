r"""Measure what an experiment has trained, on its test split and, where it has one, its unseen one.

    python -m recipes.evaluate retrieval reconstruction generation --out=runs/demo
    python -m recipes.evaluate retrieval probe --config recipes/configs/flickr8k.yaml \
        --data.source='[FOLDER]'

Reads OUT/orderer and OUT/ar, and OUT/joint where stage 3 has been; without a task it does the first
three. `probe` trains fresh readers on the frozen tokens: what is in them, whatever the orderer's
own readout makes of it. `classification` is for labelled sets, `factors` has a linear map read
scenes. `likelihood` scores the tokens of test images; `fidelity`, beside `generation`, takes the
distance of generated images to real ones in the features of the judge of classes or words. Writes
OUT/evaluation.json (figures and their protocol) and OUT/pictures. On 2 CPU cores the default takes
about a minute.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ar import ARModel
from ar.evaluation import deviations
from ar.model import NOISE_FLOOR
from data import Pairs, is_drawn
from orderer import Orderer, OrdererConfig, OrdererProcessor, prefix_lengths
from orderer.evaluation import gain_maps, mean_psnr, raster_leak, retrieval_metrics
from recipes.caption_quality import written_from_prefixes
from recipes.checking import check_fusion
from recipes.classifying import classification
from recipes.conditions import condition_on
from recipes.engine import pictures
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.engine.results import provenance, write_json
from recipes.engine.settings import plain_settings
from recipes.engine.training import prepare_device
from recipes.experiment import Experiment
from recipes.fidelity import Fidelity, check_enough, check_fidelity
from recipes.finding import embed_captions, embeddings_at_prefixes, find_at_prefixes
from recipes.judging import Judge, make_judge
from recipes.likelihood import likelihood
from recipes.probing import factors_read, fresh_reader, tokens_of
from recipes.reranking import rerank_at_prefixes
from recipes.training_record import check_set_apart, digest_of_record, read_record

BATCH = 250
SHOWN = 8
"""Images whose strips are drawn."""
GRID = 24
"""Images in a grid of generated ones."""
APART = 1_000_000
"""Seeds of generated images between two seeds of an experiment."""


@torch.no_grad()
def main(experiment: Experiment) -> None:
    """Measure each pair of models and write the figures."""
    device = prepare_device()
    seed_everything(experiment.seed, rank=0)
    tasks = experiment.evaluation.tasks
    if "factors" in tasks and not is_drawn(experiment.data.source):
        source = ", ".join(experiment.data.source)
        raise ValueError(f"the task factors is for scenes, got data from {source}")
    check_fidelity(experiment)
    folders = {"separate": experiment.out}
    if (experiment.out / "joint" / "orderer").is_dir():
        folders["joint"] = experiment.out / "joint"
    first = _load(experiment.out, device)
    check_fusion(experiment, first[0].config)
    for folder in folders.values():
        check_set_apart(experiment, folder / "orderer", first[0].config.image_size)
    models = {}
    if {"generation", "likelihood"} & set(tasks):
        models = {name: ARModel.from_pretrained(each / "ar") for name, each in folders.items()}
        models["separate"].check_orderer(first[0].encoding_hash())
    pairs = experiment.data.open_test(first[0].config.image_size)
    unseen = experiment.data.open_unseen(first[0].config.image_size)
    check_enough(experiment, unseen)
    judge = None
    if "generation" in tasks:
        judge = make_judge(experiment, unseen, said(experiment, unseen), *first)

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
        shown = experiment.out / "pictures" / name
        found = understanding(experiment, pairs, orderer, processor, shown)
        if "probe" in tasks:
            found["probe"] = probe(experiment, pairs, orderer, processor)
        if "factors" in tasks:
            found["factors"] = factors_read(orderer, experiment.evaluation.probe_scenes)
        if experiment.data.unseen is not None:
            beside = experiment.out / "pictures" / name / "unseen"
            found["unseen"] = understanding(experiment, unseen, orderer, processor, beside)
        if name in models:
            model = models[name].to(device).eval()
            model.check_orderer(orderer.encoding_hash())
            if "likelihood" in tasks:
                scored = said(experiment, pairs, experiment.evaluation.scored)
                tokens = tokens_of(orderer, pairs)
                found["likelihood"] = likelihood(tokens, scored, model, orderer, processor)
            if judge is not None:
                found["generation"] = generation(
                    experiment, unseen, orderer, processor, model, judge, name
                )
        results[name] = found
    write_json(
        experiment.out / "evaluation.json",
        {
            "results": results,
            "orderers": orderers,
            "protocol": protocol(experiment, pairs, unseen, judge, first[0].config),
            "config": plain_settings(experiment),
            **provenance(),
        },
    )


def understanding(
    experiment: Experiment,
    pairs: Pairs,
    orderer: Orderer,
    processor: OrdererProcessor,
    folder: Path,
) -> dict[str, Any]:
    """What the orderer knows of a split: retrieval and reconstruction, as far as they are asked."""
    tasks = experiment.evaluation.tasks
    tokens = tokens_of(orderer, pairs)
    found: dict[str, Any] = {}
    if "retrieval" in tasks:
        found["retrieval"] = retrieval(experiment, pairs, orderer, processor, tokens)
    if "classification" in tasks:
        at = embeddings_at_prefixes(tokens, orderer.readout)
        templates = experiment.data.templates
        found["classification"] = classification(
            pairs.captions, templates, at, orderer.text, processor, tokens.device
        )
    if "captioning" in tasks:
        found["captioning"] = written_from_prefixes(experiment, pairs, tokens, orderer, processor)
    if "reconstruction" in tasks:
        found |= reconstruction(pairs, orderer, tokens, folder)
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


def reconstruction(pairs: Pairs, orderer: Orderer, tokens: Tensor, folder: Path) -> dict[str, Any]:
    """PSNR at every prefix, and which part of the image each token improves."""
    rebuilt = {
        k: torch.cat([_uint8(orderer.decode(z[:, :k])) for z in tokens.split(BATCH)])
        for k in range(1, orderer.config.tokens + 1)
    }
    lengths = prefix_lengths(orderer.config.tokens)
    maps = gain_maps(pairs.images, [rebuilt[k] for k in sorted(rebuilt)], least=1)
    shown = {k: rebuilt[k][:SHOWN].numpy() for k in lengths}
    pictures.prefix_strips(pairs.images[:SHOWN].numpy(), shown, folder / "strips.png")
    pictures.gain_maps(maps.numpy(), folder / "gains.png")
    cells = orderer.config.image_size // orderer.config.patch_size
    leak = raster_leak(maps, cells)
    return {
        "reconstruction": {"psnr": {str(k): mean_psnr(pairs.images, rebuilt[k]) for k in lengths}},
        "order": {"raster_leak": leak.pop("largest"), "by_order": leak, "images": len(pairs)},
    }


def _uint8(images: Tensor) -> Tensor:
    """Decoded images as they are saved and judged."""
    return ((images.float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def generation(
    experiment: Experiment,
    pairs: Pairs,
    orderer: Orderer,
    processor: OrdererProcessor,
    model: ARModel,
    judge: Judge,
    name: str,
) -> dict[str, Any]:
    """Generate an image for one caption of each of the first pairs, and judge them."""
    captions = said(experiment, pairs)
    real = pairs.images[: len(captions)]
    rebuilt = torch.cat(
        [_uint8(orderer.decode(orderer.encode(x.to(model.device)))) for x in real.split(BATCH)]
    )
    fidelity = None
    if "fidelity" in experiment.evaluation.tasks:
        fidelity = Fidelity(judge, pairs.images)

    def judged(guidance_scale: float, picture: str) -> dict[str, Any]:
        tokens = drawn(experiment, captions, guidance_scale, orderer, processor, model)
        images = torch.cat([_uint8(orderer.decode(part)) for part in tokens.split(BATCH)])
        path = experiment.out / "pictures" / name / picture
        pictures.captioned_grid(images[:GRID].numpy(), captions[:GRID], path, 6)
        spread = deviations(model.standardise(tokens)).tolist() if len(tokens) > 1 else None
        scores: dict[str, Any] = {**judge.score(images), "deviations": spread}
        return scores | ({"fidelity": fidelity.of_generated(images)} if fidelity else {})

    found = judged(experiment.sampling.guidance_scale, "generated.png")
    found |= {"rebuilt": judge.score(rebuilt), "real": judge.score(real)}
    if fidelity:
        found["fidelity"] |= fidelity.bounds(rebuilt)
    if experiment.evaluation.guidance_scales:
        found["guided"] = {
            f"{scale:g}": judged(scale, f"generated-{scale:g}.png")
            for scale in experiment.evaluation.guidance_scales
        }
    return found


def drawn(
    experiment: Experiment,
    captions: Sequence[str],
    guidance_scale: float,
    orderer: Orderer,
    processor: OrdererProcessor,
    model: ARModel,
) -> Tensor:
    """The tokens of an image for each caption."""
    parts = []
    for i in range(0, len(captions), BATCH):
        condition = condition_on(captions[i : i + BATCH], model, orderer, processor)
        first = APART * experiment.seed + i
        parts.append(
            model.generate(
                condition,
                sampling=replace(experiment.sampling, guidance_scale=guidance_scale),
                seeds=range(first, first + len(condition.keep)),
            )
        )
    return torch.cat(parts)


def said(experiment: Experiment, pairs: Pairs, number: int | None = None) -> list[str]:
    """One caption of each of the first images: of as many as are generated, by default."""
    place = 0 if experiment.evaluation.captions == "all" else -1
    number = experiment.evaluation.generated if number is None else number
    return [of_one[place] for of_one in pairs.captions[:number]]


def protocol(
    experiment: Experiment,
    pairs: Pairs,
    unseen: Pairs,
    judge: Judge | None,
    config: OrdererConfig,
) -> dict[str, Any]:
    """How the figures were taken; null where a task that was not asked would have its own."""
    evaluation, tasks = experiment.evaluation, experiment.evaluation.tasks
    generated = min(evaluation.generated, len(unseen)) if "generation" in tasks else None
    return {
        "tasks": list(tasks),
        "split": experiment.data.test,
        **_counts(pairs),
        "unseen": {"split": experiment.data.unseen or experiment.data.test, **_counts(unseen)},
        "queries": experiment.evaluation.captions,
        "templates": list(experiment.data.templates),
        "tuning_count": experiment.data.tuning_count,
        "generated": generated,
        "decoder": _decoding(config),
        "probe": _probing(experiment) if "probe" in tasks else None,
        "factors": _reading(experiment) if "factors" in tasks else None,
        "dtype": "models in float32, scores in float64, images in uint8",
        "ties": "expected rank over random orders of equal scores; counted in retrieval.ties",
        "rerank": experiment.evaluation.rerank,  # of retrieval.reranked; the rest knows of none
        "sampling": plain_settings(experiment.sampling),
        "likelihood": _scoring(experiment, pairs) if "likelihood" in tasks else None,
        "judge": judge.about if judge else None,
        "seeds": [experiment.seed],
    }


def _decoding(config: OrdererConfig) -> dict[str, Any]:
    """How tokens become images."""
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
        "unit": "nats for each dimension of the orderer's tokens with that noise, in deviations of "
        "each channel, on them",
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
    """Which scenes the linear maps were fitted on, and which tested them; see `factors_read`."""
    number = experiment.evaluation.probe_scenes
    return {
        "fit": {"split": "judge", "scenes": number},
        "test": {"split": "val", "scenes": max(1, number // 3)},
    }


def _counts(pairs: Pairs) -> dict[str, Any]:
    return {
        "images": len(pairs),
        "captions": sum(map(len, pairs.captions)),
        "skipped": pairs.skipped,
        "dataset": pairs.fingerprint,
    }


def _load(folder: Path, device: torch.device) -> tuple[Orderer, OrdererProcessor]:
    orderer = Orderer.from_pretrained(folder / "orderer").to(device).eval()
    return orderer, OrdererProcessor.from_pretrained(folder / "orderer")


def with_tasks(arguments: Sequence[str]) -> list[str]:
    """Read leading words as the tasks."""
    tasks = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    options = list(arguments[len(tasks) :])
    return [*options, f"--evaluation.tasks=[{','.join(tasks)}]"] if tasks else options


if __name__ == "__main__":
    start(main, Experiment, with_tasks(sys.argv[1:]))

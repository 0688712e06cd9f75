r"""Stage 1: train an orderer on image-text pairs.

    python -m recipes.train_orderer
    python -m recipes.train_orderer --config recipes/configs/emoji.yaml \
        --data.source='[FOLDER, FOLDER]' --out=runs/emoji
    python -m recipes.train_orderer --data.train_count=null \
        --data.source='["https://host/train-{000000..000123}.tar"]'
    python -m recipes.train_orderer --orderer.features=open_clip:ViT-B-16@clip.safetensors \
        --orderer.image_size=224 --orderer.patch_size=16 --orderer.text=transformers:FOLDER \
        --orderer.text_trained=false

Writes OUT/orderer (model and processor, for `from_pretrained`, and training.json, what it was
trained with), OUT/logs (progress, tensorboard)
and OUT/checkpoints/orderer; `--resume` goes on from the newest of these. With an adversarial term
also OUT/discriminator.safetensors, which no later stage reads. Starts unchanged under `torchrun`
and `accelerate launch`; with `--execution.parallel=sharded` every process keeps its part of the
model only. On 2 CPU cores the default takes about four minutes as the demo starts it, on two
processes.

Image features and the text tower may be another library's, frozen or tuned (at
`train_orderer.optim.tower_lr`): see `orderer.start` for how they are named. What is saved needs
neither the file nor the folder that they came from; resuming does.

Shards behind URLs (http, https, s3, hf) are read as they come: see `data.stream` for what order and
resuming then promise. Captions that are too long are left out as they are met, and a run that is
resumed must name the same shards, but nobody checks that they hold the same.
"""

from collections.abc import Sequence
from itertools import islice

from accelerate import PartialState
from safetensors.torch import save_file
from torch import Tensor

from data import Batch
from orderer import OrdererProcessor, Stage1, weights_named
from recipes.captioning import say
from recipes.checking import build_stage1
from recipes.data_settings import WHAT_A_STEP_SEES, tell_skipped
from recipes.engine.checkpoint import is_fresh
from recipes.engine.cli import run as start
from recipes.engine.processes import others_wait_for, seed_everything
from recipes.engine.settings import scalars_named, settings_named
from recipes.engine.sharding import whole
from recipes.engine.training import (
    Progress,
    apply_gradients,
    check_divides,
    clear_gradients,
    mean_values,
    precise,
    prepare_device,
)
from recipes.experiment import Experiment
from recipes.planning import tell_plan
from recipes.training_record import training_record, write_record

SHAPING = (
    *WHAT_A_STEP_SEES,
    "orderer",
    "train_orderer",
    "seed",
    "precision",
)
"""Settings that the learning depends on."""


def main(experiment: Experiment) -> None:
    """Train, checkpoint, save."""
    settings = experiment.train_orderer
    seed_everything(experiment.seed, rank=0)  # the same start on every process
    saver = experiment.saver("orderer")
    built = build_stage1(experiment, is_fresh(saver.folder, experiment.resume))
    pairs, processor, model = built.pairs, built.processor, built.stage.orderer

    device = prepare_device(experiment.execution.stall_seconds)
    processes = PartialState().num_processes
    check_divides(settings.batch_size, settings.accumulate, processes)
    stage = built.stage.to(device).train()
    experiment.execution.prepare(stage)
    learners = {"orderer": settings.optim.learner(stage, settings.steps)}
    if stage.discriminator:
        against = stage.discriminator.to(device).train()
        learners["discriminator"] = settings.discriminator_optim.learner(against, settings.steps)
    progress = Progress(
        saver=saver,
        total="train_orderer.steps",
        later=experiment.saver("ar").folder,
        learners=learners,
        settings={
            **scalars_named("orderer", model.config.own()),
            **settings_named(experiment, *SHAPING),
            **weights_named(model.config),
            "pairs": pairs.fingerprint,
            **{f"weights of {name}_model": sha256 for name, sha256 in stage.teachers.items()},
        },
    )
    first, earlier = progress.restore(experiment.resume)
    run, parts = experiment.run("orderer", settings, first, earlier), settings.accumulate
    draw = experiment.data.draw(settings.batch_size // parts, experiment.seed, run)
    if experiment.dry_run:
        return tell_plan(experiment, settings, progress, first, pairs)

    with run, saver:
        batches = experiment.data.batches(pairs, draw, processor)
        ahead = batches.ahead(first * parts, settings.steps * parts, experiment.data.workers)
        for step in range(first, settings.steps):
            seed_everything(experiment.seed, run.rank, step)
            clear_gradients(list(learners.values()))
            some = [batch for _, batch in islice(ahead, parts)]
            means = accumulate(experiment, stage, processor, step, some, pulls=run.logs_at(step))
            keys = [key for batch in some for key in batch.keys]
            norm, *_ = apply_gradients(step, list(learners.values()), means, keys)
            run.log(step, {**means, "gradient_norm": norm})
            if progress.stops_after(step + 1, run):
                return
        weights_of_all = whole(model.state_dict())
        record = training_record(
            experiment,
            "orderer",
            "train_orderer",
            "execution",
            pairs=pairs.fingerprint,
            processes=processes,
            totals=progress.totals,
        ) | {"teachers": stage.teachers}

        def hand_on() -> None:
            tell_skipped(pairs.name, batches.skipped)
            model.save_pretrained(experiment.out / "orderer", state_dict=weights_of_all)
            if stage.discriminator:
                tensors = stage.discriminator.state_dict()
                save_file(tensors, experiment.out / "discriminator.safetensors")
            processor.save_pretrained(experiment.out / "orderer")
            write_record(experiment.out / "orderer", record)

        others_wait_for(hand_on)


def accumulate(
    experiment: Experiment,
    stage: Stage1,
    processor: OrdererProcessor,
    step: int,
    batches: Sequence[Batch],
    *,
    pulls: bool,
) -> dict[str, Tensor]:
    """Add up the gradients of a step's micro-batches; their mean losses are returned.

    Args:
        experiment: whose objectives they are.
        stage: that learns.
        processor: of its captions.
        step: from 0; what is weighed, and how much, depends on it.
        batches: of which the losses' mean is learned.
        pulls: whether to give the norm of each objective's own gradient, too.
    """
    settings, device = experiment.train_orderer, stage.orderer.device
    weights, balanced = settings.objectives.weights(step), None
    values = []
    for batch in batches:
        said = say(batch, processor, stage.orderer.config.tokens, settings.detail).to(device)
        with precise(device, experiment.precision):
            terms = stage(batch.images.to(device), said, weights)
        balanced = balanced or stage.balanced(terms, weights, step)
        loss = terms.total(balanced)
        norms = terms.gradient_norms(balanced) if pulls else {}
        (loss / len(batches)).backward()
        norms = {f"gradient_norm/{name}": norm for name, norm in norms.items()}
        values.append({"loss": loss, **terms.values, **terms.apart, **norms})
    return mean_values(values)


if __name__ == "__main__":
    start(main, Experiment)

"""Stage 3: fine-tune the orderer and the AR model together.

    python -m recipes.train_joint
    python -m recipes.train_joint --train_joint.route=frozen

Reads OUT/orderer and OUT/ar; writes OUT/joint/orderer, OUT/joint/ar, OUT/logs and
OUT/checkpoints/joint; `--resume` goes on from the newest of these. Starts unchanged under
`torchrun` and `accelerate launch`. On 2 CPU cores the default takes under a minute.

Routes: both train the AR model on its own loss, and `frozen` nothing else. `align` also trains the
orderer, on stage 1's losses at full weight (but those whose networks it does not hand on: the
adversarial one and the alignment of features) and on an alignment loss of its own, which reaches it
through the AR model and leaves that one as it is. The AR loss always sees detached tokens: through
them it would collapse the orderer.
"""

import torch

from ar import Alignment, ARModel
from orderer import Orderer, OrdererProcessor, Stage1, contrastive_loss, prefix_lengths
from recipes.captioning import loss_of_writing, say
from recipes.conditions import condition_on
from recipes.data_settings import captions_of_all, check_captions, tell_skipped
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.engine.settings import settings_named
from recipes.engine.training import Progress, precise, prepare_device, update
from recipes.experiment import Experiment
from recipes.planning import tell_plan
from recipes.training_record import read_record, training_record, write_record

SHAPING = (
    "data.train",
    "data.train_count",
    "data.last_share",
    "data.length_power",
    "data.templates",
    "data.weights",
    "data.crop_area",
    "data.mirrored",
    "train_joint",
    "train_orderer.objectives",
    "train_orderer.detail",
    "train_ar.condition_drop",
    "train_ar.caption_weight",
    "seed",
    "precision",
)
"""Settings that the learning depends on."""


def main(experiment: Experiment) -> None:
    """Train both, checkpoint, save."""
    settings = experiment.train_joint
    device = prepare_device(experiment.execution.stall_seconds)
    orderer = Orderer.from_pretrained(experiment.out / "orderer").to(device).train()
    processor = OrdererProcessor.from_pretrained(experiment.out / "orderer")
    model = ARModel.from_pretrained(experiment.out / "ar").to(device).train()
    model.check_orderer(orderer.encoding_hash())
    pairs = experiment.data.open_train(orderer.config.image_size)
    check_captions(experiment.data.phrased(captions_of_all(pairs)), processor)
    prefixes = [k - 1 for k in prefix_lengths(orderer.config.tokens)]
    objectives = experiment.train_orderer.objectives.replayed()
    stage = Stage1(orderer, objectives).to(device).train()

    seed_everything(experiment.seed, rank=0)  # the same start on every process
    generating = torch.nn.ModuleDict({"ar": model})
    alignment = None
    if settings.route == "align":
        alignment = Alignment(model, orderer.config.embed_dim).to(device)
        generating["alignment"] = alignment
    learners = {"ar": settings.ar_optim.learner(generating, settings.steps)}
    if alignment is None:
        orderer.requires_grad_(False)
    else:
        learners["orderer"] = settings.orderer_optim.learner(stage, settings.steps)
    progress = Progress(
        saver=experiment.saver("joint"),
        learners=learners,
        settings={
            **settings_named(experiment, *SHAPING),
            "pairs": pairs.fingerprint,
            "orderer_hash": model.config.orderer_hash,
            **{f"weights of {name}_model": sha256 for name, sha256 in stage.teachers.items()},
        },
    )
    first, earlier = progress.restore(experiment.resume)
    if experiment.dry_run:
        return tell_plan(experiment, settings, progress, first, pairs)

    with experiment.run("joint", settings, first, earlier) as run:
        another = experiment.seed + 1  # than stage 1's order
        draw = experiment.data.draw(settings.batch_size, another, run)
        batches = experiment.data.batches(pairs, draw, processor)
        for step, batch in batches.ahead(first, settings.steps, experiment.data.workers):
            seed_everything(experiment.seed, run.rank, step)
            said = say(batch, processor, orderer.config.tokens, experiment.train_orderer.detail)
            said = said.to(device)
            dropped = torch.rand(len(batch.images)) < experiment.train_ar.condition_drop
            with precise(device, experiment.precision):
                # Stage 1, on replayed pairs and at full weight
                terms = stage(batch.images.to(device), said, objectives.full_weights())
                # Stage 2, on detached tokens
                condition = condition_on(batch.captions, model, orderer, processor)
                condition = model.drop(condition, dropped.to(device))
                errors = model.loss(terms.tokens.detach(), condition)  # [K]
            loss = errors.mean()
            logged = {"ar": loss, **terms.values}
            if model.config.writes and experiment.train_ar.caption_weight:
                with precise(device, experiment.precision):
                    tokens = terms.tokens.detach()
                    written = loss_of_writing(model, tokens, batch.captions, processor)
                logged["caption"] = written
                loss = loss + experiment.train_ar.caption_weight * written
            if alignment is not None:
                # How stage 2 reaches stage 1: the trunk's states must tell the caption
                route = terms.tokens if step >= settings.align_from else terms.tokens.detach()
                with precise(device, experiment.precision):
                    aligned = contrastive_loss(
                        alignment(model, route)[:, prefixes].float(),
                        orderer.embed_texts(said.texts).detach().float()[said.at],
                        said.numbers[said.at],
                        orderer.scale.detach(),
                    ).mean()
                logged["alignment"] = aligned
                weights = stage.balanced(terms, objectives.full_weights(), step)
                loss = loss + settings.align * aligned + terms.total(weights)
            update(step, loss, list(learners.values()), logged, batch.keys)
            run.log(step, {"loss": loss, **logged})
            if progress.stops_after(step + 1, run):
                return
        if run.is_main:
            tell_skipped(pairs.name, batches.skipped)
            model.config.orderer_hash = orderer.encoding_hash()
            orderer.save_pretrained(experiment.out / "joint" / "orderer")
            processor.save_pretrained(experiment.out / "joint" / "orderer")
            names = ("train_orderer", "train_ar", "train_joint")
            together = run.accelerator.num_processes
            own = training_record(experiment, *names, pairs=pairs.fingerprint, processes=together)
            before = read_record(experiment.out / "orderer") or {}
            write_record(experiment.out / "joint" / "orderer", {**before, "joint": own})
            model.save_pretrained(experiment.out / "joint" / "ar")


if __name__ == "__main__":
    start(main, Experiment)

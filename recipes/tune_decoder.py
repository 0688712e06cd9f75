"""After stage 1: tune the decoder of an orderer whose tokens stay as they are.

    python -m recipes.tune_decoder
    python -m recipes.evaluate reconstruction --out=OUT/tuned --data.source='[FOLDER]'

Stage 1 takes the mean of all images that a prefix may stand for, which is blurred. Here the decoder
alone goes on, against a discriminator that tells what is rebuilt from what is real: sharper images,
nearer to real ones as a whole (Fréchet distance), for some tenths of a dB. A fixed order gets a
decoder of the default size, which adds to what its components say; let it learn without the
adversarial term first (`--tune_decoder.objectives.adversarial_from=600`).

Reads OUT/orderer; writes OUT/tuned/orderer and, where there is an OUT/ar, a copy of it beside that:
a pair for all other recipes. Tokens, AR models and indices of the old orderer are those of the new
one too. OUT/logs has the progress, OUT/checkpoints/decoder what `--resume` goes on from. Starts
unchanged under `torchrun` and `accelerate launch`.

Source: Yu et al. 2024 (TiTok), section 3.3, whose second stage tunes the decoder with the encoder
frozen, https://arxiv.org/abs/2406.07550.
"""

import shutil
from functools import partial
from pathlib import Path

from orderer import Objectives, Orderer, OrdererProcessor, Stage1
from orderer.sequences import FixedOrder, load_sequence
from orderer.sequences.refining import Refining
from orderer.transformers_towers import weight_files
from orderer.weights import digest_of
from recipes.data_settings import WHAT_A_STEP_SEES, tell_skipped
from recipes.engine.cli import run as start
from recipes.engine.ema import moving_average
from recipes.engine.files import JSON
from recipes.engine.processes import others_wait_for, seed_everything
from recipes.engine.settings import scalars_named, settings_named
from recipes.engine.training import Progress, precise, prepare_device, update
from recipes.experiment import Experiment
from recipes.planning import tell_plan
from recipes.training_record import read_record, training_record, write_record

SHAPING = (*WHAT_A_STEP_SEES, "tune_decoder", "seed", "precision")
"""Settings that the learning depends on."""
APART = 2
"""Seeds between the order of the data here and that of stage 1."""


def main(experiment: Experiment) -> None:
    """Train, checkpoint, save."""
    settings = experiment.tune_decoder
    device = prepare_device(experiment.execution.stall_seconds)
    folder = experiment.out / "orderer"
    orderer = load_sequence(folder)
    processor = OrdererProcessor.from_pretrained(folder)
    pairs = experiment.data.open_train_or_urls(orderer.config.image_size)

    seed_everything(experiment.seed, rank=0)  # the same start on every process
    stage, orderer = tuned(orderer, settings.objectives)
    stage.to(device).train()
    assert orderer.decoder is not None and stage.discriminator is not None
    against = stage.discriminator.to(device).train()
    average = moving_average(orderer.decoder, settings.ema_decay)
    learners = {
        "decoder": settings.optim.learner(orderer.decoder, settings.steps),
        "discriminator": settings.discriminator_optim.learner(against, settings.steps),
    }
    progress = Progress(
        saver=experiment.saver("decoder"),
        total="tune_decoder.steps",
        learners=learners,
        settings={
            **scalars_named("orderer", orderer.config.own()),
            **settings_named(experiment, *SHAPING),
            "weights of orderer": digest_of(weight_files(folder)),
            "pairs": pairs.fingerprint,
        },
        averages={"decoder-average": average},
    )
    first, earlier = progress.restore(experiment.resume)
    run = experiment.run("decoder", settings, first, earlier)
    draw = experiment.data.draw(settings.batch_size, experiment.seed + APART, run)
    if experiment.dry_run:
        return tell_plan(experiment, settings, progress, first, pairs)

    with run, progress.saver:
        batches = experiment.data.batches(pairs, draw, processor)
        for step, batch in batches.ahead(first, settings.steps, experiment.data.workers):
            seed_everything(experiment.seed, run.rank, step)
            weights = settings.objectives.weights(step)
            with precise(device, experiment.precision):
                terms = stage(batch.images.to(device), None, weights)
            loss = terms.total(weights)
            values = {"loss": loss, **terms.values, **terms.apart}
            norm, _ = update(step, loss, list(learners.values()), values, batch.keys)
            run.log(step, {**values, "gradient_norm": norm})
            average.update_parameters(orderer.decoder)
            if progress.stops_after(step + 1, run):
                return
        orderer.decoder.load_state_dict(average.module.state_dict())
        record = training_record(
            experiment,
            "tune_decoder",
            pairs=pairs.fingerprint,
            processes=run.world,
            totals=progress.totals,
        )
        tell_skipped(pairs.name, batches.skipped)
        others_wait_for(partial(hand_on, experiment.out, orderer, processor, record))


def tuned(
    orderer: Orderer | FixedOrder, objectives: Objectives
) -> tuple[Stage1 | Refining, Orderer | FixedOrder]:
    """What takes the terms, and the order of which the decoder alone learns."""
    stage: Stage1 | Refining
    if isinstance(orderer, Orderer):
        stage = Stage1(orderer, objectives)
    else:
        orderer = orderer if orderer.config.refined else orderer.refined()
        stage = Refining(orderer, objectives)
    orderer.requires_grad_(False)
    assert orderer.decoder is not None
    orderer.decoder.requires_grad_(True)
    return stage, orderer


def hand_on(
    out: Path, orderer: Orderer | FixedOrder, processor: OrdererProcessor, record: dict[str, JSON]
) -> None:
    """Save the orderer, and beside it the AR model of the same tokens."""
    tuned = out / "tuned"
    if (out / "ar").is_dir():
        shutil.rmtree(tuned / "ar", ignore_errors=True)
        shutil.copytree(out / "ar", tuned / "ar")
    orderer.save_pretrained(tuned / "orderer")
    processor.save_pretrained(tuned / "orderer")
    before = read_record(out / "orderer") or {}
    write_record(tuned / "orderer", {**before, "decoder": record})


if __name__ == "__main__":
    start(main, Experiment)

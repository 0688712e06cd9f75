"""Stage 2: train an AR model on the tokens that stage 1 wrote.

    python -m recipes.train_ar

Reads OUT/orderer (for its word embeddings), OUT/tokens and OUT/held; writes OUT/ar (for
`from_pretrained`), OUT/logs (progress, tensorboard) and OUT/checkpoints/ar; `--resume` goes on from
the newest of these. Validation says how likely the held pairs are, under the weights and under
their moving average; the better of the two is saved. Starts unchanged under `torchrun` and
`accelerate launch`. On 2 CPU cores the default takes about three minutes as the demo starts it, on
two processes.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from ar import ARConfig, ARModel, start_ar
from data import TokenBatches, TokenStore
from orderer import OrdererProcessor
from orderer.sequences import load_sequence
from recipes.data_settings import check_captions
from recipes.engine.cli import run as start
from recipes.engine.ema import moving_average
from recipes.engine.files import JSON
from recipes.engine.processes import others_wait_for, seed_everything
from recipes.engine.settings import scalars_named, settings_named
from recipes.engine.training import Progress, precise, prepare_device, update
from recipes.experiment import Experiment
from recipes.planning import tell_plan
from recipes.stage_2 import losses_of, total_of
from recipes.training_record import training_record, write_record
from recipes.validating import Validation

SAMPLED = 10_000
"""Sequences from which a head takes what it does not learn, and on which statistics are checked."""
SHAPING = (
    "data.last_share",
    "data.length_power",
    "data.weights",
    "ar",
    "train_ar.steps",
    "train_ar.batch_size",
    "train_ar.condition_drop",
    "train_ar.caption_weight",
    "train_ar.optim",
    "train_ar.ema_decay",
    "seed",
    "precision",
)
"""Settings that the learning depends on; how many pairs are held, `pairs` below says."""


def main(experiment: Experiment) -> None:
    """Train, checkpoint, save."""
    settings = experiment.train_ar
    device = prepare_device(experiment.execution.stall_seconds)
    orderer = load_sequence(experiment.out / "orderer").to(device)
    processor = OrdererProcessor.from_pretrained(experiment.out / "orderer")
    store = TokenStore.open(experiment.out / "tokens")
    store.check_orderer(orderer.encoding_hash())
    held = TokenStore.open(experiment.out / "held")
    held.check_orderer(store.orderer_hash)
    captions = (*store.captions, *held.captions)  # of both: a class may be among held pairs alone
    config = experiment.ar_config(orderer.config, store.orderer_hash, captions)
    if config.condition == "text" or config.has_words:
        check_captions(captions, processor)

    seed_everything(experiment.seed, rank=0)  # the same start on every process
    model = fitted(config, store, device)
    learner = settings.optim.learner(model, settings.steps)
    average = moving_average(model, settings.ema_decay)
    progress = Progress(
        saver=experiment.saver("ar"),
        total="train_ar.steps",
        later=experiment.saver("joint").folder,
        learners={"ar": learner},
        settings={
            **scalars_named("ar", config.own()),
            **settings_named(experiment, *SHAPING),
            "pairs": store.fingerprint,
        },
        averages={"ar-average": average},
    )
    first, earlier = progress.restore(experiment.resume)
    run = experiment.run("ar", settings, first, earlier)
    draw = experiment.data.draw(settings.batch_size, experiment.seed, run)
    if experiment.dry_run:
        return tell_plan(experiment, settings, progress, first, store)

    with run, progress.saver:
        batches = TokenBatches(store, **vars(draw))
        place = -1 if experiment.data.last_share >= 0.5 else 0
        validation = Validation(
            store=held,
            caption=place,
            orderer=orderer,
            processor=processor,
            every=settings.validate_every,
        )
        found = None
        if validation.is_due(first, run) and not run.has_recorded(first - 1, "validation"):
            found = validation.of_both(model, average.module, run)  # it was stopped before that
            run.record(first - 1, found)
        for step in range(first, settings.steps):
            seed_everything(experiment.seed, run.rank, step)
            batch = batches.at(step)
            with precise(device, experiment.precision):
                errors, losses = losses_of(experiment, model, batch, orderer, processor)
            (norm,) = update(step, total_of(losses, settings), [learner], losses, batch.keys)
            ends = {"first_token": errors[0], "last_token": errors[-1]}
            run.log(step, {**losses, **ends, "gradient_norm": norm})
            average.update_parameters(model)
            validates = validation.is_due(step + 1, run)
            if progress.stops_after(step + 1, run, saves=validates):
                return
            if validates:
                found = validation.of_both(model, average.module, run)
                run.record(step, found)
        last = found or validation.of_both(model, average.module, run)  # recorded before
        is_averaged = last["validation_ema"] < last["validation"]
        better = average.module if is_averaged else model
        assert isinstance(better, ARModel)
        record = training_record(
            experiment,
            "ar",
            "train_ar",
            pairs=store.fingerprint,
            processes=run.world,
            totals=progress.totals,
        )
        record["validation"] = {**last, "is_averaged": is_averaged}
        others_wait_for(partial(hand_on, better, record, experiment.out / "ar"))


def fitted(config: ARConfig, store: TokenStore, device: torch.device) -> ARModel:
    """A model at its start, which knows the tokens' statistics, and its head what they look like.

    Raises:
        ValueError: if the statistics are not those of the tokens.
    """
    model = start_ar(config).to(device).train()
    model.set_statistics(store.mean.to(device), store.std.to(device))
    places = torch.linspace(0, len(store) - 1, min(SAMPLED, len(store))).long()
    sample = store.tokens[places].to(device)
    model.check_statistics(sample)
    model.head.fit(model.standardise(sample))
    return model


def hand_on(model: ARModel, record: Mapping[str, JSON], folder: Path) -> None:
    """Save a model for stage 3 and for use, with what it was trained with."""
    model.save_pretrained(folder)
    write_record(folder, record)


if __name__ == "__main__":
    start(main, Experiment)

"""Stage 2: train an AR model on the tokens that stage 1 wrote.

    python -m recipes.train_ar

Reads OUT/orderer (for its word embeddings) and OUT/tokens; writes OUT/ar (for `from_pretrained`),
OUT/logs (progress, tensorboard) and OUT/checkpoints/ar; `--resume` goes on from the newest of
these. Starts unchanged under `torchrun` and `accelerate launch`. On 2 CPU cores the default takes
about three minutes as the demo starts it, on two processes.
"""

import torch

from ar import ARModel
from data import TokenBatches, TokenStore
from orderer import Orderer, OrdererProcessor
from recipes.conditions import condition_on
from recipes.data_settings import check_captions
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.engine.run import Run
from recipes.engine.settings import settings_named
from recipes.engine.training import Progress, precise, prepare_device, update
from recipes.experiment import Experiment

SHAPING = (
    "data.last_share",
    "data.length_power",
    "data.weights",
    "ar",
    "train_ar",
    "seed",
    "precision",
)
"""Settings that the learning depends on."""


def main(experiment: Experiment) -> None:
    """Train, checkpoint, save."""
    settings = experiment.train_ar
    device = prepare_device()
    orderer = Orderer.from_pretrained(experiment.out / "orderer").to(device).eval()
    processor = OrdererProcessor.from_pretrained(experiment.out / "orderer")
    store = TokenStore.open(experiment.out / "tokens")
    store.check_orderer(orderer.encoding_hash())
    config = experiment.ar_config(orderer.config, store.orderer_hash, store.captions)
    if config.condition == "text":
        check_captions(store.captions, processor)

    seed_everything(experiment.seed, rank=0)  # the same start on every process
    model = ARModel(config).to(device).train()
    model.set_statistics(store.mean.to(device), store.std.to(device))
    model.head.fit(model.standardise(store.tokens.to(device)))
    learner = settings.optim.learner(model, settings.steps)
    progress = Progress(
        folder=experiment.out / "checkpoints" / "ar",
        learners={"ar": learner},
        settings={
            **settings_named(experiment, *SHAPING),
            "pairs": store.fingerprint,
            "orderer_hash": store.orderer_hash,
        },
    )
    first, earlier = progress.restore(experiment.resume)

    with Run(
        experiment.out,
        "ar",
        settings.steps,
        experiment.log_every,
        first,
        samples_per_step=settings.batch_size,
        earlier_seconds=earlier,
    ) as run:
        draw = experiment.data.draw(settings.batch_size, experiment.seed, run)
        batches = TokenBatches(store, **vars(draw))
        for step in range(first, settings.steps):
            seed_everything(experiment.seed, run.rank, step)
            batch = batches.at(step)
            dropped = torch.rand(len(batch.tokens)) < settings.condition_drop
            with precise(device, experiment.precision):
                condition = condition_on(batch.captions, model, orderer, processor)
                condition = model.drop(condition, dropped.to(device))
                errors = model.loss(batch.tokens.to(device), condition)  # [K]
            loss = errors.mean()
            (norm,) = update(step, loss, [learner])
            run.log(
                step,
                {
                    "loss": loss,
                    "first_token": errors[0],
                    "last_token": errors[-1],
                    "gradient_norm": norm,
                },
            )
            done = step + 1
            if done % experiment.checkpoint_every == 0 or done == settings.steps:
                progress.save(done, run)
            elif run.stop_requested:
                progress.save(done, run)
                return
        if run.is_main:
            model.save_pretrained(experiment.out / "ar")


if __name__ == "__main__":
    start(main, Experiment)

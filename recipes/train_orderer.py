r"""Stage 1: train an orderer on image-text pairs.

    python -m recipes.train_orderer
    python -m recipes.train_orderer --config recipes/configs/emoji.yaml \
        --data.source='[FOLDER, FOLDER]' --out=runs/emoji
    python -m recipes.train_orderer --data.train_count=null \
        --data.source='["https://host/train-{000000..000123}.tar"]'

Writes OUT/orderer (model and processor, for `from_pretrained`), OUT/logs (progress, tensorboard)
and OUT/checkpoints/orderer; `--resume` goes on from the newest of these. Starts unchanged under
`torchrun` and `accelerate launch`. On 2 CPU cores the default takes about four minutes as the demo
starts it, on two processes.

Shards behind URLs (http, https, s3, hf) are read as they come: see `data.stream` for what order and
resuming then promise. Captions that are too long are left out as they are met, and a run that is
resumed must name the same shards, but nobody checks that they hold the same.
"""

from orderer import Orderer, OrdererProcessor
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.engine.run import Run
from recipes.engine.settings import settings_named
from recipes.engine.training import Progress, precise, prepare_device, update
from recipes.experiment import Experiment, captions_of_all, check_captions, tell_skipped

SHAPING = (
    "data.train",
    "data.train_count",
    "data.last_share",
    "data.length_power",
    "data.weights",
    "data.crop_area",
    "data.mirrored",
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
    model = Orderer(experiment.orderer_config())
    processor = OrdererProcessor(model.config.image_size, model.config.context_length)
    pairs = experiment.data.open_train_or_urls(model.config.image_size)
    check_captions(captions_of_all(pairs), processor)

    device = prepare_device()
    model.to(device).train()
    learner = settings.optim.learner(model, settings.steps)
    progress = Progress(
        folder=experiment.out / "checkpoints" / "orderer",
        learners={"orderer": learner},
        settings={**settings_named(experiment, *SHAPING), "pairs": pairs.fingerprint},
    )
    first, earlier = progress.restore(experiment.resume)

    with Run(
        experiment.out,
        "orderer",
        settings.steps,
        experiment.log_every,
        first,
        samples_per_step=settings.batch_size,
        earlier_seconds=earlier,
    ) as run:
        draw = experiment.data.draw(settings.batch_size, experiment.seed, run)
        batches = experiment.data.batches(pairs, draw, processor)
        for step, batch in batches.ahead(first, settings.steps, experiment.data.workers):
            seed_everything(experiment.seed, run.rank, step)
            ramp = min(max((step - settings.contrastive_from) / settings.contrastive_ramp, 0), 1)
            text = processor.text(batch.captions).to(device) if ramp else None
            with precise(device, experiment.precision):
                terms = model.loss(
                    batch.images.to(device),
                    text,
                    processor.identities(batch.captions).to(device),
                    settings.full_share,
                )
            contrastive = terms.contrastive.mean()
            loss = (
                settings.reconstruction * terms.reconstruction
                + settings.contrastive * ramp * contrastive
            )
            (norm,) = update(step, loss, [learner])
            run.log(
                step,
                {
                    "loss": loss,
                    "reconstruction": terms.reconstruction,
                    "contrastive": contrastive,
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
            tell_skipped(pairs.name, batches.skipped)
            model.save_pretrained(experiment.out / "orderer")
            processor.save_pretrained(experiment.out / "orderer")


if __name__ == "__main__":
    start(main, Experiment)

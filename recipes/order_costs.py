"""What it costs to learn to generate images in some order, counted before anything is trained."""

import math
from dataclasses import dataclass
from functools import partial

from ar import start_ar
from data import Batch, Batches, PairSource, TokenBatch
from orderer import OrdererProcessor, Stage1
from orderer.objectives import BALANCED_EVERY
from orderer.sequences import FixedOrder, ImageSequence
from recipes.captioning import say
from recipes.checking import build_stage1
from recipes.compute import flops_of
from recipes.data_settings import captions_of_all
from recipes.engine.processes import seed_everything
from recipes.engine.training import apply_gradients, clear_gradients
from recipes.experiment import Experiment
from recipes.stage_2 import costs_of_step

STEP = 10
"""Of which the operations are counted; warm-ups of terms are over by then, and terms that are
balanced are measured, as in every so many."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Operations of matrix products, convolutions and attention; 2 for each product."""

    stage_1: int
    """Of the orderer's whole training; 0 for a fixed order."""
    encoding: int
    """Of all training images, once."""
    step: int
    """Of one step of the AR model."""

    def total(self, steps: int) -> int:
        """All operations up to an AR model of so many steps."""
        return self.stage_1 + self.encoding + steps * self.step


def costs_of(experiment: Experiment) -> Costs:
    """Count a step of each stage on one batch, and the encoding of an image."""
    seed_everything(experiment.seed, rank=0)
    pairs = experiment.data.open_train(experiment.orderer_config().image_size)
    if experiment.order:
        sequence: ImageSequence = FixedOrder(experiment.sequence_config()).eval()
        size, context = sequence.config.image_size, sequence.config.context_length
        processor, stage_1 = OrdererProcessor(size, context), 0
    else:
        built = build_stage1(experiment, is_fresh=True)
        sequence, processor = built.stage.orderer, built.processor
        batch = _batch(experiment, pairs, processor, experiment.train_orderer.batch_size)
        stage_1 = _stage_1(experiment, built.stage, processor, batch)
        sequence.eval()
    batch = _batch(experiment, pairs, processor, experiment.train_ar.batch_size)
    encoding = flops_of(partial(sequence.encode, batch.images)) * len(pairs) // len(batch.images)
    return Costs(
        stage_1=stage_1,
        encoding=encoding,
        step=_ar_step(experiment, pairs, sequence, processor, batch),
    )


def steps_within(total: int, costs: Costs, arm: str) -> int:
    """Steps of an AR model that a budget leaves.

    Raises:
        ValueError: if it leaves none.
    """
    steps = (total - costs.stage_1 - costs.encoding) // costs.step
    if steps < 1:
        raise ValueError(f"the budget of {total / 1e9:,.0f} GFLOP leaves no step to {arm}")
    return steps


def _batch(
    experiment: Experiment, pairs: PairSource, processor: OrdererProcessor, size: int
) -> Batch:
    draw = experiment.data.draw(size, experiment.seed)
    batches = experiment.data.batches(pairs, draw, processor)
    assert isinstance(batches, Batches)  # `pairs` are local
    return batches.at(0)


def _stage_1(
    experiment: Experiment, stage: Stage1, processor: OrdererProcessor, batch: Batch
) -> int:
    """Of all steps of stage 1, as `recipes.train_orderer` does them; the stage is two further."""
    settings = experiment.train_orderer
    learner = settings.optim.learner(stage.train(), settings.steps)
    weights = settings.objectives.weights(settings.steps - 1)
    said = say(batch, processor, stage.orderer.config.tokens, settings.detail)

    def learn(step: int) -> None:
        clear_gradients([learner])
        terms = stage(batch.images, said, weights)
        terms.total(stage.balanced(terms, weights, step)).backward()
        apply_gradients(step, [learner], terms.values, batch.keys)

    measuring, plain = (flops_of(partial(learn, step)) for step in (STEP, STEP + 1))
    measured = math.ceil(settings.steps / BALANCED_EVERY)
    return settings.steps * plain + measured * (measuring - plain)


def _ar_step(
    experiment: Experiment,
    pairs: PairSource,
    sequence: ImageSequence,
    processor: OrdererProcessor,
    batch: Batch,
) -> int:
    hash_ = sequence.encoding_hash()
    model = start_ar(experiment.ar_config(sequence.config, hash_, captions_of_all(pairs))).train()
    tokens = sequence.encode(batch.images).detach()
    model.set_statistics(tokens.mean(dim=0), tokens.std(dim=0).clamp(min=0.01))
    read = TokenBatch(tokens=tokens, captions=batch.captions, keys=batch.keys)

    return costs_of_step(experiment, model, read, sequence, processor)["step"]

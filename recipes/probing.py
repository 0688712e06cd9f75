"""What frozen tokens hold, whatever the orderer's own readout makes of them."""

from typing import Any

import torch
from torch import Tensor

from data import Pairs
from data.scenes import load_scenes
from orderer import Orderer, OrdererProcessor, prefix_lengths
from orderer.evaluation import FreshReader, readable, readable_from
from orderer.sequences import ImageSequence
from recipes.captioning import say
from recipes.engine.processes import seed_everything
from recipes.engine.run import Run
from recipes.engine.training import precise, update
from recipes.experiment import Experiment
from recipes.questions import facts

BATCH = 250


def fresh_reader(
    experiment: Experiment, orderer: Orderer, processor: OrdererProcessor
) -> FreshReader:
    """Train a new readout and a new text tower on an orderer's tokens.

    They learn from the pairs and with the learning rates of stage 1, for as many steps whatever the
    orderer: what they find is comparable between orderers.
    """
    steps, batch_size = experiment.evaluation.probe_steps, experiment.train_orderer.batch_size
    pairs = experiment.data.open_train(processor.image_size)
    seed_everything(experiment.seed, rank=0)
    reader = FreshReader(orderer.config).to(orderer.device).train()
    learner = experiment.train_orderer.optim.learner(reader, steps)
    with Run(
        experiment.out, "probe", steps, experiment.log_every, samples_per_step=batch_size
    ) as run:
        draw = experiment.data.draw(batch_size, experiment.seed + 1, run)  # not stage 1's order
        batches = experiment.data.batches(pairs, draw, processor)
        for step, batch in batches.ahead(0, steps, experiment.data.workers):
            seed_everything(experiment.seed, run.rank, step)
            said = say(batch, processor, orderer.config.tokens, detail=False).to(orderer.device)
            tokens = orderer.encode(batch.images.to(orderer.device))
            with torch.enable_grad(), precise(orderer.device, experiment.precision):
                loss = reader(tokens, said)
                update(step, loss, [learner])
            run.log(step, {"loss": loss})
            if run.stop_requested:
                raise KeyboardInterrupt
    return reader.eval()


def factors_read(orderer: Orderer, number: int, pairs: Pairs) -> dict[str, Any]:
    """What a linear map reads of the factors of scenes, and from which prefix on.

    Args:
        orderer: trained on scenes.
        number: of scenes that the map is fitted on.
        pairs: scenes that test it.
    """
    known = load_scenes("judge", number, orderer.config.image_size)
    fit, test = (tokens_of(orderer, some).cpu() for some in (known, pairs))
    scores = readable(fit, facts(known), test, facts(pairs), prefix_lengths(orderer.config.tokens))
    return {
        factor: {
            "score": {str(k): score for k, score in at.items()},
            "readable_from": readable_from(at),
        }
        for factor, at in scores.items()
    }


@torch.no_grad()
def tokens_of(orderer: ImageSequence, pairs: Pairs) -> Tensor:
    """Encode all images of a split."""
    return torch.cat([orderer.encode(x.to(orderer.device)) for x in pairs.images.split(BATCH)])

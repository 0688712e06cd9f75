"""A step of stage 3 against a step of stage 1 and one of stage 2, of the same sizes and pairs."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from ar import ARModel
from ar.joint import Route
from data import Batch
from orderer import Orderer, OrdererProcessor, Stage1, start_processor
from recipes.captioning import say
from recipes.conditions import condition_on
from recipes.data_settings import DataSettings
from recipes.engine.fast_matmul import use_fast_matmul
from recipes.engine.memory import peak_memory
from recipes.engine.training import precise, update
from recipes.experiment import Experiment
from recipes.joining import Joint
from recipes.training_settings import JointTraining

from .case import Case, cpu_seconds, in_turns

MEASURED: tuple[Route, ...] = ("align", "context", "decode", "rate")
EXPERIMENT = Experiment(data=DataSettings(train_count=512))


def measure(runs: int, experiment: Experiment = EXPERIMENT) -> Iterator[Case]:
    """Measure the routes that reach the orderer, on one core, at the sizes of the demo.

    Args:
        runs: of each side.
        experiment: of which sizes and pairs.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    use_fast_matmul()
    config = experiment.orderer_config()
    orderer, processor = Orderer(config), start_processor(config)
    pairs = experiment.data.open_train(config.image_size)
    draw = experiment.data.draw(experiment.train_joint.batch_size, experiment.seed)
    _, batch = next(experiment.data.batches(pairs, draw, processor).ahead(0, 1, workers=1))
    captions = [[caption] for caption in batch.captions]
    model = ARModel(experiment.ar_config(config, orderer.encoding_hash(), captions))
    apart = _apart(experiment, *copy.deepcopy((orderer, model)), processor, batch)
    for route in MEASURED:
        learns = replace(JointTraining(), route=route, rewarm=0)
        joint = Joint.of(
            replace(experiment, train_joint=learns), *copy.deepcopy((orderer, model)), processor
        )
        case = in_turns(
            f"joint_step_{route}",
            "s of CPU time",
            partial(cpu_seconds, partial(joint.learn, 0, batch)),
            partial(cpu_seconds, apart),
            runs,
            is_rate=False,
        )
        yield replace(
            case, errors={"peak_memory_so_far_bytes": float(peak_memory(torch.device("cpu")))}
        )


def _apart(
    experiment: Experiment,
    orderer: Orderer,
    model: ARModel,
    processor: OrdererProcessor,
    batch: Batch,
) -> Callable[[], None]:
    """A step of stage 1 and one of stage 2, as their recipes do them."""
    objectives = experiment.train_orderer.objectives.replayed()
    stage = Stage1(orderer, objectives).train()
    first = experiment.train_orderer.optim.learner(stage, 10)
    second = experiment.train_ar.optim.learner(model.train(), 10)
    weights, device = objectives.full_weights(), orderer.device

    def step() -> None:
        said = say(batch, processor, orderer.config.tokens, detail=False)
        with precise(device, experiment.precision):
            terms = stage(batch.images, said, weights)
        update(0, terms.total(stage.balanced(terms, weights, 0)), [first])
        with precise(device, experiment.precision):
            condition = condition_on(batch.captions, model, orderer, processor)
            loss = model.loss(terms.tokens.detach().float(), condition).mean()
        update(0, loss, [second])

    return step

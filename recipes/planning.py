"""What a training would do, said before it begins: `--dry_run`."""

from collections.abc import Iterator

from accelerate import PartialState
from torch import nn
from torch.optim import Muon

from data import PairSource, ShardUrls, TokenStore
from recipes.engine.memory import bytes_in_words
from recipes.engine.training import Learner, Progress
from recipes.experiment import Experiment
from recipes.training_settings import OrdererTraining, Training

MOMENTS = 2
"""That AdamW keeps of every parameter; Muon keeps one."""


def tell_plan(
    experiment: Experiment,
    settings: Training,
    progress: Progress,
    first: int,
    pairs: PairSource | ShardUrls | TokenStore,
) -> None:
    """Print what a training would do from step `first` on, from the main process."""
    if PartialState().is_main_process:
        for line in _plan(experiment, settings, progress, first, pairs):
            print(line, flush=True)


def _plan(
    experiment: Experiment,
    settings: Training,
    progress: Progress,
    first: int,
    pairs: PairSource | ShardUrls | TokenStore,
) -> Iterator[str]:
    state = PartialState()
    world, parallel = state.num_processes, "replicated"
    parts = 1
    if isinstance(settings, OrdererTraining):
        parts, parallel = settings.accumulate, experiment.execution.parallel
    share = settings.batch_size // world
    yield f"steps:      {first} to {settings.steps}, checkpoints in {progress.saver.folder}"
    yield f"processes:  {world}, {parallel}, on {state.device}"
    yield (
        f"batch:      {settings.batch_size} samples, {share} a process, in {parts} micro-batches "
        f"of {share // parts}"
    )
    if isinstance(pairs, ShardUrls):
        shards, readers = len(pairs.urls), world * experiment.data.workers
        yield f"shards:     {shards}, {shards / readers:.3g} for each of {readers} workers"
    else:
        yield f"pairs:      {len(pairs)}, {len(pairs) / settings.batch_size:.4g} steps an epoch"
    learners = list(progress.learners.values())
    count = sum(p.numel() for each in learners for p in each.model.parameters())
    learning = sum(p.numel() for each in learners for p in _learning(each.model))
    yield f"parameters: {count:,}, of which {learning:,} learn"
    needed = sum(map(_bytes, learners)) / (world if parallel == "sharded" else 1)
    needed += sum(p.nbytes for each in progress.averages.values() for p in each.parameters())
    yield (
        f"memory:     {bytes_in_words(needed)} a process for weights, gradients, moments and "
        "averages; what a batch takes comes on top"
    )


def _bytes(learner: Learner) -> int:
    """Weights, their gradients, and what the optimizers remember."""
    weights = sum(p.nbytes for p in learner.model.parameters())
    remembered = sum(
        p.nbytes * (1 if isinstance(optimizer, Muon) else MOMENTS)
        for optimizer in learner.optimizers
        for group in optimizer.param_groups
        for p in group["params"]
    )
    return weights + sum(p.nbytes for p in _learning(learner.model)) + remembered


def _learning(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]

"""Randomness, gradients and words across the processes of one training.

Gradients are averaged after the backward pass instead of wrapping the model in
DistributedDataParallel: our models are called by other methods than `forward`, which the wrapper
does not see, and the mean of the processes' gradients is exact.
"""

import json
import random
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

JOINED_BELOW = 50_000
"""Gradients of fewer values are sent as one: each alone would wait as long as all together."""
BEAT_SECONDS = 0.5
"""Between two signs of life; whoever waits for another lets it have at least a second."""


def seed_everything(seed: int, rank: int, step: int = 0) -> None:
    """Start the random streams of python, numpy and torch at a place of (seed, rank, step).

    Give rank 0 on every process to make equal models; then each its own rank, so that noise
    differs. Called before every step, it makes the step's noise a pure function of the three and
    leaves nothing to save.
    """
    if min(seed, rank, step) < 0:
        raise ValueError(f"seed must be at least 0, got seed {seed}, rank {rank}, step {step}")
    words = np.random.SeedSequence([seed, rank, step]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank_and_world() -> tuple[int, int]:
    """Which process this is, from 0, and of how many."""
    return (0, 1) if world_size() == 1 else (dist.get_rank(), world_size())


def is_first() -> bool:
    """Whether this is the process that does what only one should."""
    return rank_and_world()[0] == 0


def texts_of_all(text: str) -> list[str]:
    """The text of every process, on all of them; as bytes, because torch would pickle objects."""
    if world_size() == 1:
        return [text]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device)
    lengths = torch.zeros(world_size(), dtype=torch.int64, device=device)
    lengths[dist.get_rank()] = len(data)
    dist.all_reduce(lengths)
    padded = torch.zeros(int(lengths.max()), dtype=torch.uint8, device=device)
    padded[: len(data)] = data
    found = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(found, padded)
    return [
        bytes(each[:length].tolist()).decode()
        for each, length in zip(found, lengths.tolist(), strict=True)
    ]


def others_wait_for(work: Callable[[], object]) -> None:
    """Do what only the first process does, however long it takes; call it on all of them.

    The others hear of it again and again: it is no process that stalls.

    Args:
        work: must not talk with other processes; it is done in a thread.
    """
    if world_size() == 1:
        work()
    elif working := _worked(work if is_first() else None):
        working.result()


def all_do(work: Callable[[], object]) -> None:
    """The same of what each process does its own part of, at its own speed.

    Raises:
        OSError: on all processes, if the work of one did.
    """
    if world_size() == 1:
        work()
        return
    working = _worked(work)
    assert working is not None
    error = working.exception()
    if error is not None and not isinstance(error, OSError):
        raise error
    said = [error.errno, error.strerror or str(error), error.filename] if error else None
    for text in texts_of_all(json.dumps(said, default=str)):
        if (found := json.loads(text)) is not None:
            raise OSError(*found) from error


def _worked(work: Callable[[], object] | None) -> "Future[object] | None":
    """Have this process do something, and return when all are done."""
    with ThreadPoolExecutor(1, "work") as pool:
        working = pool.submit(work) if work else None
        while _is_any_busy(working):
            pass
    return working


def _is_any_busy(working: "Future[object] | None") -> bool:
    """Whether a process is still at it; all hear of it every `BEAT_SECONDS`."""
    if working:
        wait([working], BEAT_SECONDS)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    busy = torch.tensor(int(working is not None and not working.done()), device=device)
    dist.all_reduce(busy)
    return bool(busy)


GONE = 3
"""The exit code of a process that ends because another that trained with it is gone or stalled."""


def is_of_another_process(error: BaseException) -> bool:
    """Whether an error says that another process is gone, or did not answer in time."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "/gloo/" in str(error)
    )


def check_alone(environment: Mapping[str, str]) -> None:
    """Refuse to do in several processes what each of them would do alone.

    Raises:
        ValueError: with their number.
    """
    if (world := environment.get("WORLD_SIZE", "1")) != "1":
        raise ValueError(
            f"this recipe runs on one process, as python starts it, got WORLD_SIZE={world}"
        )


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse a launch that would start one process, or many alone, where many together were asked.

    Raises:
        ValueError: for `accelerate launch --cpu`, whose number of processes is the only thing that
            makes it set a port, or `srun` of several tasks, where no variable tells the ranks.
    """
    if "WORLD_SIZE" in environment:
        return
    if environment.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_PORT" in environment:
        raise ValueError(
            "accelerate launch --cpu starts one process whatever --num_processes says: use "
            "torchrun --nproc-per-node, or leave --num_processes at 1"
        )
    tasks = environment.get("SLURM_STEP_NUM_TASKS", "1")
    if tasks != "1" and "SLURM_PROCID" in environment:
        raise ValueError(
            f"srun started {tasks} tasks, and nothing says that they belong together: set RANK, "
            "LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, as in "
            "recipes/configs/launch/slurm.sh"
        )


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the mean over processes in place of every gradient; nothing to do on one process.

    A gradient that only some processes have counts as zero on the others; one that none has stays
    None, so that its optimizer skips it as on one process. Those of a model that is shared out were
    averaged by the backward pass.
    """
    if world_size() == 1:
        return
    used = _used_anywhere([p for p in parameters if p.requires_grad and not isinstance(p, DTensor)])
    if not used:
        return
    gradients = []
    for parameter in used:
        here = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        parameter.grad = here.contiguous()
        gradients.append(parameter.grad)
    for gradient in gradients:
        if gradient.numel() >= JOINED_BELOW:
            _average(gradient)
    small = [gradient for gradient in gradients if gradient.numel() < JOINED_BELOW]
    if small:
        joined = torch.cat([gradient.flatten() for gradient in small])
        _average(joined)
        parts = joined.split([gradient.numel() for gradient in small])
        for gradient, part in zip(small, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def of_all(values: Tensor) -> Tensor:
    """The rows of all processes, in their order: each has as many."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def _average(values: Tensor) -> None:
    dist.all_reduce(values)
    values /= dist.get_world_size()


def _used_anywhere(parameters: list[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that have a gradient on some process: the same list on all."""
    if not parameters:
        return []
    used = torch.tensor([p.grad is not None for p in parameters], device=parameters[0].device)
    counts = used.int()
    dist.all_reduce(counts)
    return [p for p, count in zip(parameters, counts.tolist(), strict=True) if count]

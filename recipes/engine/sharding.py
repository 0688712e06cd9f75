"""Models shared out over the processes: each keeps its part of every weight, gradient and moment.

Source: Zhao et al. 2023, https://arxiv.org/abs/2304.11277; torch's second form of it,
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html.
"""

from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.optim import Muon, Optimizer


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The repeated parts of a model, named as transformers names them: `_no_split_modules`."""
    names = {
        name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()
    }
    return [part for part in model.modules() if type(part).__name__ in names]


def shard(model: nn.Module) -> None:
    """Share a model out, block by block; on one process there is nothing to share.

    Call it before the optimizers are made. Gradients are then averaged by the backward pass.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return
    device = next(model.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    numbers = {p for p in model.parameters() if p.ndim == 0}  # as a temperature: all keep it
    for part in [*reversed(blocks_of(model)), model]:  # what lies inside comes first
        fully_shard(part, mesh=mesh, ignored_params=numbers)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put tensors together on the first process; the others must take part, and get nothing.

    Those that are not shared out are given to all as they are. For a model that is handed on; a
    checkpoint is written in parts.
    """
    found = {}
    for name, tensor in tensors.items():
        if not isinstance(tensor, DTensor):
            found[name] = tensor
            continue
        together = tensor.full_tensor()
        if dist.get_rank() == 0:
            found[name] = together.cpu()  # one after another: the device need not hold them all
    return found


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Share a whole tensor, which all processes have, out as another one is."""
    if not isinstance(other, DTensor) or tensor.ndim == 0:
        return tensor
    here = tensor.to(other.device)
    return distribute_tensor(here, other.device_mesh, other.placements, src_data_rank=None)


def make_whole_for_steps(muon: Muon) -> None:
    """Have Muon see whole matrices while it steps, where they are shared out.

    It also steps on parts, but then sums its bf16 products over the processes in every one of its
    15, and rounds otherwise than on one process. Momentum is shared out again after the step.
    """
    muon.register_step_pre_hook(_gather)
    muon.register_step_post_hook(_scatter)


def _gather(optimizer: Optimizer, *_: Any) -> None:
    for parameter, state in _shared_out(optimizer):
        everywhere = [Replicate()] * parameter.device_mesh.ndim
        parameter.grad = parameter.grad.redistribute(placements=everywhere)
        if "momentum_buffer" in state:
            state["momentum_buffer"] = state["momentum_buffer"].redistribute(placements=everywhere)


def _scatter(optimizer: Optimizer, *_: Any) -> None:
    for parameter, state in _shared_out(optimizer):
        placements = parameter.placements
        state["momentum_buffer"] = state["momentum_buffer"].redistribute(placements=placements)


def _shared_out(optimizer: Optimizer) -> list[tuple[Any, dict[str, Any]]]:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return [
        (p, optimizer.state[p]) for p in parameters if isinstance(p, DTensor) and p.grad is not None
    ]

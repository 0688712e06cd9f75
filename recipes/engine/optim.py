"""Muon on the block matrices, AdamW on the rest, and one schedule for both."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import AdamW, Muon, Optimizer

from .bf16 import WithoutBf16, has_bf16
from .files import JSON
from .sharding import make_whole_for_steps, placed_like

STATE: Mapping[type[Optimizer], Sequence[str]] = {
    AdamW: ("step", "exp_avg", "exp_avg_sq"),
    Muon: ("momentum_buffer",),
}
"""What each keeps of a parameter that has learned."""


def make_optimizers(
    model: nn.Module,
    is_block_matrix: Callable[[str, Tensor], bool],
    *,
    muon_lr: float,
    adamw_lr: float,
    weight_decay: float,
    adamw_betas: tuple[float, float] = (0.9, 0.95),
    slow: Collection[str] = (),
    slow_lr: float = 0.0,
) -> list[Optimizer]:
    """Give Muon the chosen matrices and AdamW every other parameter that learns.

    Only weights of layers decay: vectors, embeddings and bare parameters (queries, positions) keep
    their size.

    Args:
        model: parameters with `requires_grad=False` are left alone.
        is_block_matrix: says of a parameter's name and value whether Muon takes it; what has not
            two dimensions goes to AdamW whatever it says.
        muon_lr: in AdamW's scale, by `match_rms_adamw`.
        adamw_lr: learning rate of the rest.
        weight_decay: the same for both.
        adamw_betas: decay rates of AdamW's two averages.
        slow: names of parameters that AdamW takes at a rate of their own, matrices too.
        slow_lr: that rate.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; `match_rms_adamw`:
    Liu et al. 2025, section 2.2, https://arxiv.org/abs/2502.16982.
    """
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not learning:
        raise ValueError(f"{type(model).__name__} has no parameter that learns")
    fast = {name: p for name, p in learning.items() if name not in slow}
    blocks = {name for name, p in fast.items() if p.ndim == 2 and is_block_matrix(name, p)}
    rest = {name: p for name, p in learning.items() if name not in blocks}
    optimizers: list[Optimizer] = []
    if blocks:
        matrices = [learning[name] for name in sorted(blocks)]
        muon = Muon(matrices, muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        make_whole_for_steps(muon)
        optimizers.append(muon)
    if rest:
        embeddings = _embedding_names(model)
        usual = {name: p for name, p in rest.items() if name not in slow}
        tuned = {name: p for name, p in rest.items() if name in slow}
        groups = _decay_groups(usual, embeddings, weight_decay)
        for group in _decay_groups(tuned, embeddings, weight_decay):
            groups.append({**group, "lr": slow_lr})
        # The fused kernel also pays on a CPU: 27 ms against 85 for 52 M parameters.
        optimizers.append(AdamW(groups, lr=adamw_lr, betas=adamw_betas, fused=True))
    return optimizers


class Schedule:
    """Learning rates as a pure function of the step, so a resumed run needs nothing but the step.

    The factor on every group's own rate is 0 before step `first`, rises linearly over
    `warmup_steps`, is 1 at step `first + warmup_steps`, and falls as a cosine to 0 at step `steps`,
    one after the last update.

    Args:
        optimizers: their groups' rates at this moment are the peaks.
        steps: updates of the whole training, at least 1.
        warmup_steps: 0 to `steps - first`.
        first: the step that learns first, for models that others wait for.
    """

    def __init__(
        self, optimizers: Sequence[Optimizer], steps: int, warmup_steps: int, first: int = 0
    ) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if not 0 <= warmup_steps <= steps - first:
            raise ValueError(
                f"warmup_steps must be from 0 to steps={steps - first}, got {warmup_steps}"
            )
        self.optimizers = optimizers
        for group in self._groups():
            group.setdefault("initial_lr", group["lr"])  # a restored optimizer brings its own
        self.steps, self.warmup_steps, self.first = steps - first, warmup_steps, first

    def factor(self, step: int) -> float:
        """The share of the peak rate that update number `step` (from 0) uses."""
        step -= self.first
        if step < self.warmup_steps:
            return max(0, step + 1) / (self.warmup_steps + 1)
        done = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        return 0.5 * (1 + math.cos(math.pi * done))

    def set(self, step: int) -> None:
        """Set every group's rate for update number `step`."""
        factor = self.factor(step)
        for group in self._groups():
            group["lr"] = group["initial_lr"] * factor

    def _groups(self) -> Iterator[dict[str, Any]]:
        # Looked up every time: restoring an optimizer replaces its groups.
        for optimizer in self.optimizers:
            yield from optimizer.param_groups


def take_step(optimizer: Optimizer) -> None:
    """Take a step; Muon's products are made in fp32 where bf16 would be slower."""
    with nullcontext() if has_bf16() else WithoutBf16():
        optimizer.step()


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients so that their joint norm is at most `max_norm`; the norm before."""
    parameters = list(parameters)
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = _joint_norm(gradients)
    nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
    return norm


def _joint_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The norm of all gradients, of those that are shared out and of those that are not."""
    shared = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
    if not shared:
        return nn.utils.get_total_norm(gradients)
    own = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
    norm = nn.utils.get_total_norm(shared).full_tensor()  # type: ignore[attr-defined]
    if not own:  # whose norm would lie on the CPU
        return norm
    return torch.stack([norm, nn.utils.get_total_norm(own)]).norm()


def optimizer_tensors(optimizer: Optimizer) -> tuple[dict[str, Tensor], JSON]:
    """An optimizer's state as tensors named `{parameter index}.{key}` and its groups as JSON.

    The state may hold tensors only, as that of AdamW and Muon does. They are the live ones: save
    them before the next update.
    """
    saved = optimizer.state_dict()
    tensors = {
        f"{index}.{key}": value
        for index, entry in saved["state"].items()
        for key, value in entry.items()
    }
    return tensors, saved["param_groups"]


def restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: JSON) -> None:
    """Undo `optimizer_tensors` exactly, on an optimizer made in the same way.

    Raises:
        ValueError: it is the state of another optimizer.
    """
    check_state(optimizer, tensors, groups)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, key = name.split(".", maxsplit=1)
        own = tensor.clone()  # load_state_dict keeps what it gets
        state.setdefault(int(index), {})[key] = placed_like(own, parameters[int(index)])
    typed = [_with_tuples(group) for group in groups]
    optimizer.load_state_dict({"state": state, "param_groups": typed})


def check_state(optimizer: Optimizer, tensors: Mapping[str, Tensor], groups: JSON) -> None:
    """Refuse a saved state that is not one of this optimizer.

    Raises:
        ValueError: names the first tensor that does not fit.
    """
    kind, now = type(optimizer).__name__, optimizer.state_dict()["param_groups"]
    if _outline(groups) != _outline(now):
        raise ValueError(f"the saved {kind} has other parameters than this one")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    of_each = {name.split(".")[0] for name in tensors}
    expected = {f"{index}.{key}" for index in of_each for key in STATE[type(optimizer)]}
    if odd := sorted(expected ^ tensors.keys()):
        raise ValueError(f"the saved {kind} {'lacks' if odd[0] in expected else 'has'} {odd[0]}")
    for name, tensor in tensors.items():
        index = name.split(".")[0]
        if not (index.isdecimal() and int(index) < len(parameters)):
            raise ValueError(f"the saved {kind} has {name} of {len(parameters)} parameters")
        shape = [] if name.endswith(".step") else list(parameters[int(index)].shape)
        if list(tensor.shape) != shape or not tensor.is_floating_point():
            raise ValueError(
                f"{name} of the saved {kind} is {list(tensor.shape)} of {tensor.dtype} and must be "
                f"{shape} of floats"
            )


def _outline(groups: JSON) -> list[JSON]:
    """Which parameters are in which group, and of what kind each setting of a group is."""
    if not (isinstance(groups, list) and all(isinstance(group, dict) for group in groups)):
        return []
    typed = [_with_tuples(group) for group in groups]
    kinds = [{key: type(value) for key, value in group.items()} for group in typed]
    return [(group.get("params"), each) for group, each in zip(typed, kinds, strict=True)]


def _with_tuples(group: Mapping[str, JSON]) -> dict[str, JSON]:
    """JSON turns tuples (betas) into lists; only `params` was a list before."""
    return {
        key: tuple(value) if isinstance(value, list) and key != "params" else value
        for key, value in group.items()
    }


def _embedding_names(model: nn.Module) -> set[str]:
    embeddings = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Embedding)]
    return {f"{name}.weight" if name else "weight" for name, _ in embeddings}


def _decay_groups(
    parameters: Mapping[str, nn.Parameter], embeddings: set[str], weight_decay: float
) -> list[dict[str, object]]:
    decays = {
        name: p.ndim >= 2 and name.endswith("weight") and name not in embeddings
        for name, p in parameters.items()
    }
    groups: list[dict[str, object]] = []
    for decaying, decay in ((True, weight_decay), (False, 0.0)):
        members = [p for name, p in parameters.items() if decays[name] is decaying]
        if members:
            groups.append({"params": members, "weight_decay": decay})
    return groups

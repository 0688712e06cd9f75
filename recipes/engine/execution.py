"""How a model is computed: what each process keeps of it, what is computed twice, what is compiled.

None of this changes what is learned by more than rounding: a run may go on with another choice.
"""

import os
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
import torch._functorch.config
from torch import nn
from transformers import PreTrainedModel

from .sharding import blocks_of, shard

DAY = 86_400
"""In seconds."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a model is computed in training."""

    parallel: Literal["replicated", "sharded"] = "replicated"
    """Whether each process keeps the whole model, or its part of every weight (FSDP2)."""
    gradient_checkpointing: bool = False
    """True computes each block a second time in the backward pass instead of keeping its inside."""
    compile: bool = False
    """True compiles the blocks, each kind of them once."""
    stall_seconds: float = 60
    """How long a process waits for another before it ends with an error; a checkpoint may take
    longer."""

    def __post_init__(self) -> None:
        if not 1 <= self.stall_seconds <= DAY:
            raise ValueError(
                f"stall_seconds must be from 1 to a day, {DAY}, got {self.stall_seconds}"
            )

    def prepare(self, model: nn.Module) -> None:
        """Make a model so, in place, before its optimizers are made.

        Raises:
            ValueError: if accelerate was asked to shard: it would shard nothing, without a word.
        """
        if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
            raise ValueError(
                "accelerate's own FSDP shards nothing here: launch without it and set "
                "execution.parallel to sharded, got ACCELERATE_USE_FSDP=true"
            )
        if self.gradient_checkpointing:
            compute_twice(model)
        if self.compile:
            # Else a compiled backward pass runs once only, and the terms' gradient norms fail.
            torch._functorch.config.donated_buffer = False
            for block in blocks_of(model):
                block.compile()
        if self.parallel == "sharded":
            shard(model)


def compute_twice(model: nn.Module) -> None:
    """Turn gradient checkpointing on in the models of transformers that this one is made of.

    open_clip's towers are left out: computed again, they choose another attention than before.
    """
    for part in model.children():
        if isinstance(part, PreTrainedModel):
            with warnings.catch_warnings():  # of the name that all our versions of it have
                warnings.simplefilter("ignore", FutureWarning)
                part.gradient_checkpointing_enable({"use_reentrant": False})

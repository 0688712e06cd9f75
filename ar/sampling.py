"""Sampling tokens one after another, cached and batched, with the rows that guidance compares with.

    B batch   C places of the condition   k tokens so far   K tokens at the end
    D channels of a token   W width   S noises for a token   N channels of each

Every row has noise of its own (`row_noise`), so that what is drawn of a seed and a condition does
not depend on the batch, nor on how many tokens are asked for.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import Cache, DynamicCache, StaticCache

from .heads import Draw, Head, Seen
from .settings import Sampling
from .trunk import Condition, Trunk, see_before


def row_noise(
    seeds: Sequence[int], shape: tuple[int, ...], device: torch.device
) -> Float[Tensor, "{len(seeds)} *shape"]:
    """Standard normal noise of each seed, drawn on the CPU: the same on every device."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


def sample_tokens(
    trunk: Trunk,
    head: Head,
    condition: Condition,
    null: Condition,
    first: Float[Tensor, "B k D"],
    noise: Float[Tensor, "B K S N"],
    sampling: Sampling,
    prefix: int,
) -> Float[Tensor, "B {prefix} D"]:
    """Draw standardised tokens.

    Args:
        trunk: reads the condition and the tokens so far.
        head: draws a token from what was seen.
        condition: one row per image.
        null: the same rows without a condition.
        first: tokens that are there already, none or fewer than `prefix`.
        noise: from which each of all K tokens is drawn.
        sampling: how.
        prefix: how many tokens there are at the end.
    """
    count = noise.shape[1]
    reader = Reader(trunk, condition, null, sampling, prefix)
    reader.read(first)
    prepared: dict[int, Draw] = {}  # by the number of steps
    tokens = first
    for k in range(first.shape[1], prefix):
        steps = sampling.steps_at(k, count)
        if steps not in prepared:
            prepared[steps] = head.drawing(sampling.with_steps(steps))
        token = prepared[steps](reader.seen(k, sampling.scales_at(k, count)), noise[:, k])
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        if k + 1 < prefix:
            reader.read(tokens)
    return tokens


class Reader:
    """Runs the trunk on, and remembers: whole rows, and below them those without something."""

    def __init__(
        self,
        trunk: Trunk,
        condition: Condition,
        null: Condition,
        sampling: Sampling,
        prefix: int,
    ) -> None:
        self.trunk = trunk
        self.order = condition.order
        self.without = tuple(sampling.scales)  # in the order of `Sampling.scales_at`
        given = {"condition": null, "context": condition}
        rows = stack_conditions(condition, *[given[name] for name in self.without])
        self.conditions = rows.keep.shape[1]
        self.unread: Tensor = rows.states
        self.keep = F.pad(rows.keep, (0, prefix), value=True)  # the start and all but the last
        self.places = trunk.places(self.conditions, prefix + 1)  # one more to peek at
        self.length = 0
        self.states: Tensor  # of the last place, once something is read
        config = trunk.decoder.config
        self.cache: Cache = (
            StaticCache(config, self.conditions + prefix)
            if sampling.cache == "static"
            else DynamicCache(config=config)
        )

    def read(self, tokens: Float[Tensor, "B k D"]) -> None:
        """Read what is new of the tokens so far; a row without context reads the mean of all."""
        blank = torch.zeros_like(tokens)
        kinds = [tokens, *[blank if name == "context" else tokens for name in self.without]]
        x = torch.cat([self.trunk.sequence(each, self.order) for each in kinds])
        x = torch.cat([self.unread, x[:, max(0, self.length - self.conditions) :]], dim=1)
        self.unread = self.unread[:, :0]
        new, self.length = x.shape[1], self.length + x.shape[1]
        mask = see_before(self.keep[:, : self.length], new)
        mask = F.pad(mask, (0, self._cached() - self.length))
        places = self.places[self.length - new : self.length]
        self.states = self.trunk.run(x, mask, places, self.cache).last_hidden_state[:, -1]

    def seen(self, position: int, scales: tuple[float, ...]) -> Seen:
        """What a token is drawn from, and with how much guidance."""
        whole, *without = self.states.chunk(1 + len(self.without))
        return Seen(
            states=whole,
            without=tuple(without),
            scales=scales,
            peek=self._peek,
            position=position,
        )

    def _peek(self, x: Float[Tensor, "rows 1 W"]) -> Float[Tensor, "rows W"]:
        mask = F.pad(self.keep[:, : self.length], (0, 1), value=True)[:, None, None]
        place = self.places[self.length, None]
        cache = _Forgetful(self.cache, self.length)
        return self.trunk.run(x, mask, place, cache).last_hidden_state[:, -1]

    def _cached(self) -> int:
        """Places that the cache shows, those that are still empty too."""
        if isinstance(self.cache, StaticCache):
            return self.keep.shape[1]
        return self.length


class _Forgetful(DynamicCache):
    """Shows what another cache holds and what is read now, and keeps nothing of that."""

    def __init__(self, cache: Cache, length: int) -> None:
        super().__init__()
        self.shown, self.length = cache, length

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        layer = self.shown.layers[layer_idx]
        return (
            torch.cat([layer.keys[:, :, : self.length], key_states], dim=2),
            torch.cat([layer.values[:, :, : self.length], value_states], dim=2),
        )


def stack_conditions(*conditions: Condition) -> Condition:
    """Put batches of conditions in one, the shorter padded."""
    length = max(each.keep.shape[1] for each in conditions)
    parts = [(each, length - each.keep.shape[1]) for each in conditions]
    return Condition(
        states=torch.cat([F.pad(c.states, (0, 0, 0, missing)) for c, missing in parts]),
        keep=torch.cat([F.pad(c.keep, (0, missing)) for c, missing in parts]),
    )

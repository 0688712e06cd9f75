"""Whether a decoder of transformers' reads as a trunk must: what it says is put to the test.

A model may look back through a window, keep a state in place of a cache, know masks of one shape
only, or hear its positions from elsewhere. No setting says so of all kinds.

n places   m places read at once   W width
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import Cache, DynamicCache, StaticCache

from .trunk import Trunk, see_before

PLACES = 6
FAR = 1e-4
"""Most that states may differ which should be equal, in deviations of all of them."""


@torch.no_grad()
def check_reading(trunk: Trunk) -> None:
    """Refuse a decoder that sees later or hidden places, or reads otherwise with a cache.

    Raises:
        ValueError: naming its kind, and what it does.
    """
    decoder: Any = trunk.decoder
    kind, was_training = decoder.config.model_type, trunk.training
    trunk.eval()
    try:
        troubles = list(_troubles(trunk))
    except Exception as error:  # each kind has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"a {kind} model can be no trunk, reading ends in: {reason}") from error
    finally:
        trunk.train(was_training)
    if troubles:
        raise ValueError(f"a {kind} model can be no trunk, it {troubles[0]}")


def _troubles(trunk: Trunk) -> Iterator[str]:
    x = torch.randn(2, PLACES, trunk.start.shape[0], generator=torch.Generator().manual_seed(0))
    x = x.to(trunk.start)
    whole = _read(trunk, x, PLACES, None)
    near = FAR * float(whole.std())

    def differ(one: Tensor, other: Tensor) -> bool:
        return not bool((one - other).abs().max() <= near)  # NaN differs too

    later = torch.cat([x[:, :-1], x[:, -1:] + 1], dim=1)
    if differ(_read(trunk, later, PLACES, None)[:, :-1], whole[:, :-1]):
        yield "sees later places"
    hidden = torch.cat([x[:, :1], x[:, 1:2] + 1, x[:, 2:]], dim=1)
    if differ(_read(trunk, hidden, PLACES, None)[:, 2:], whole[:, 2:]):
        yield "sees places that a mask hides"
    if torch.equal(_read(trunk, x, PLACES, None, moved=1), whole):
        yield "hears no positions from outside"
    config = trunk.decoder.config
    caches: tuple[Cache, ...] = (DynamicCache(config=config), StaticCache(config, PLACES))
    for cache in caches:
        if differ(_read(trunk, x, 2, cache), whole):
            yield f"reads otherwise with a {type(cache).__name__}"


def _read(
    trunk: Trunk, x: Float[Tensor, "2 n W"], together: int, cache: Cache | None, moved: int = 0
) -> Float[Tensor, "2 n W"]:
    """Read places, the second of which is hidden, some at once; the last may be moved on."""
    keep = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    keep[:, 1] = False
    states = []
    for start in range(0, PLACES, together):
        seen = start + together
        mask = see_before(keep[:, :seen], together)
        if isinstance(cache, StaticCache):
            mask = torch.nn.functional.pad(mask, (0, PLACES - seen))
        places = torch.arange(start, seen, device=x.device)
        places = places + moved * (places == PLACES - 1)
        states.append(trunk.run(x[:, start:seen], mask, places, cache).last_hidden_state)
    return torch.cat(states, dim=1)

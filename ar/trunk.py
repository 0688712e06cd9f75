"""The trunk: a causal transformer that reads a condition, then the tokens before each token.

    B batch   C places of the condition   K tokens   D channels of a token   W width
    n new places   m places seen

The sequence is condition, start, z_1 .. z_{K-1}; the state at `start` predicts z_1, the state at
z_i predicts z_{i+1}. Tokens have the same positions whatever the condition's length, so padding
changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import Cache

from orderer.layers import causal_mask, portable_attention

from .config import ARConfig
from .decoders import make_decoder


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What stands before the tokens."""

    states: Float[Tensor, "B C W"]
    keep: Bool[Tensor, "B C"]
    """False for padding."""
    order: Int[Tensor, "B K"] | None = None
    """Which token of each image comes when; None for the order that they are given in."""

    def rows(self, index: Int[Tensor, "R"] | slice) -> "Condition":
        """Some of its rows, each as often as it is named."""
        order = None if self.order is None else self.order[index]
        return Condition(states=self.states[index], keep=self.keep[index], order=order)


class Trunk(nn.Module):
    """Condition and tokens in, one state per token to predict out."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.embed = nn.Linear(config.token_dim, config.width)
        self.start = nn.Parameter(torch.randn(config.width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        if config.order == "random":
            self.own_positions = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        self.decoder = make_decoder(config)

    def sequence(
        self, tokens: Float[Tensor, "B k D"], order: Int[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B k+1 W"]:
        """Embed the start and the tokens after it; each place says which token it predicts.

        Args:
            tokens: the first k, in their order.
            order: which token comes when, for a model of random orders; each place then also says
                which token it holds.
        """
        start, k = self.start.expand(len(tokens), 1, -1), tokens.shape[1]
        x = torch.cat([start, self.embed(tokens.to(self.start.dtype))], dim=1)
        if not hasattr(self, "own_positions"):
            return x + F.pad(self.positions, (0, 0, 0, 1))[: k + 1]
        if order is None:
            order = torch.arange(len(self.positions), device=x.device).expand(len(tokens), -1)
        own = F.pad(self.own_positions[order[:, :k]], (0, 0, 1, 0))
        return x + own + F.pad(self.positions[order], (0, 0, 0, 1))[:, : k + 1]

    def forward(
        self, tokens: Float[Tensor, "B k D"], condition: Condition
    ) -> Float[Tensor, "B k+1 W"]:
        """States that predict tokens 1..k+1, in one pass."""
        read = self.read(condition, self.sequence(tokens, condition.order))
        return read.last_hidden_state[:, condition.keep.shape[1] :]

    def states(
        self, tokens: Float[Tensor, "B k D"], condition: Condition
    ) -> tuple[Float[Tensor, "B k+1 W"], ...]:
        """The states at the token places after every layer, the embeddings first."""
        x = self.sequence(tokens, condition.order)
        read = self.read(condition, x, output_hidden_states=True)
        return tuple(state[:, condition.keep.shape[1] :] for state in read.hidden_states)

    def read(self, condition: Condition, after: Float[Tensor, "B n W"], **options: bool) -> Any:
        """Run a condition and what comes after it; see `run` for what is returned."""
        x = torch.cat([condition.states, after], dim=1)  # [B, C + n, W]
        keep = F.pad(condition.keep, (0, after.shape[1]), value=True)
        places = self.places(condition.keep.shape[1], after.shape[1])
        return self.run(x, see_before(keep, x.shape[1]), places, **options)

    def places(self, conditions: int, after: int) -> Int[Tensor, "n"]:
        """Number the places of a condition and of what comes after it."""
        device = self.start.device
        behind = self.context_length + torch.arange(after, device=device)
        return torch.cat([torch.arange(conditions, device=device), behind])

    def run(
        self,
        x: Float[Tensor, "B n W"],
        mask: Bool[Tensor, "B 1 n m"],
        places: Int[Tensor, "n"],
        cache: Cache | None = None,
        **options: bool,
    ) -> Any:
        """Run the decoder over n new places.

        Args:
            x: embeddings of the new places.
            mask: True where a new place sees one of the m places, cached or new.
            places: numbers of the new places.
            cache: what was read before; it grows by n places.
            options: passed on to the decoder.

        Returns:
            What transformers' decoders return: `last_hidden_state`, and with `output_hidden_states`
            the `hidden_states` after every layer, the embeddings first.
        """
        with portable_attention(x.device):
            return self.decoder(
                inputs_embeds=x,
                attention_mask=mask,
                position_ids=places.expand(len(x), -1),
                past_key_values=cache,
                use_cache=cache is not None,
                **options,
            )


def see_before(keep: Bool[Tensor, "B m"], new: int) -> Bool[Tensor, "B 1 n m"]:
    """Each of the last `new` places sees itself and those before it that are kept."""
    length = keep.shape[1]
    before = causal_mask(length, keep.device)[-new:]
    self_seen = torch.eye(length, dtype=torch.bool, device=keep.device)[-new:]
    return ((before & keep[:, None, :]) | self_seen)[:, None]

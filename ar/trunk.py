"""The trunk: a causal Llama that reads a condition, then the tokens before each token.

    B batch   C places of the condition   K tokens   D channels of a token   W width

The sequence is condition, start, z_1 .. z_{K-1}; the state at `start` predicts z_1, the state at
z_i predicts z_{i+1}. Tokens have the same positions whatever the condition's length, so padding
changes nothing.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Cache, LlamaConfig, LlamaModel

from orderer.layers import portable_attention

from .config import ARConfig


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What stands before the tokens."""

    states: Float[Tensor, "B C W"]
    keep: Bool[Tensor, "B C"]
    """False for padding."""


class Trunk(nn.Module):
    """Condition and tokens in, one state per token to predict out."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__()
        self.context_length = config.context_length
        self.embed = nn.Linear(config.token_dim, config.width)
        self.start = nn.Parameter(torch.randn(config.width) * 0.02)
        self.positions = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        self.llama = LlamaModel(
            LlamaConfig(
                vocab_size=1,  # it is fed with embeddings
                hidden_size=config.width,
                intermediate_size=config.mlp_width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                max_position_embeddings=config.context_length + config.tokens,
                pad_token_id=None,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation="sdpa",
            )
        )
        del self.llama.embed_tokens

    def sequence(self, tokens: Float[Tensor, "B k D"]) -> Float[Tensor, "B k+1 W"]:
        """Embed the start and the tokens after it; each place says which token it predicts."""
        start = self.start.expand(len(tokens), 1, -1)
        x = torch.cat([start, self.embed(tokens)], dim=1)
        return x + nn.functional.pad(self.positions, (0, 0, 0, 1))[: x.shape[1]]

    def forward(
        self, tokens: Float[Tensor, "B k D"], condition: Condition
    ) -> Float[Tensor, "B k+1 W"]:
        """States that predict tokens 1..k+1, in one pass."""
        return self.states(tokens, condition)[-1]

    def states(
        self, tokens: Float[Tensor, "B k D"], condition: Condition
    ) -> tuple[Float[Tensor, "B k+1 W"], ...]:
        """The states at the token places after every layer, the embeddings first."""
        x = torch.cat([condition.states, self.sequence(tokens)], dim=1)  # [B, C + k + 1, W]
        number = condition.states.shape[1]
        keep = nn.functional.pad(condition.keep, (0, x.shape[1] - number), value=True)
        output = self.run(x, keep, self.places(number, x.shape[1] - number))
        return tuple(state[:, number:] for state in output.hidden_states)

    def places(self, conditions: int, tokens: int) -> Int[Tensor, "n"]:
        """Number the places of a condition and of the tokens (and start) after it."""
        device = self.start.device
        behind = self.context_length + torch.arange(tokens, device=device)
        return torch.cat([torch.arange(conditions, device=device), behind])

    def run(
        self,
        x: Float[Tensor, "B n W"],
        keep: Bool[Tensor, "B m"],
        places: Int[Tensor, "n"],
        cache: Cache | None = None,
    ) -> Any:
        """Run the decoder over n new places.

        Args:
            x: embeddings of the new places.
            keep: False for padding, over the m places cached and new.
            places: numbers of the new places.
            cache: what was read before; it grows by n places.

        Returns:
            What transformers' decoders return: `last_hidden_state`, and without a cache the
            `hidden_states` after every layer, the embeddings first.
        """
        with portable_attention(x.device):
            return self.llama(
                inputs_embeds=x,
                attention_mask=keep.long(),
                position_ids=places.expand(len(x), -1),
                past_key_values=cache,
                use_cache=cache is not None,
                output_hidden_states=cache is None,
            )

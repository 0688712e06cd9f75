"""An AR model as one writes it in plain torch: the same weights, the same outcome.

    B batch   K tokens   D channels of a token   W width of the trunk   V width of the head

Sampling is the loop of MAR and its like: for every token a step of a cached Llama, for every step
of the solver the whole head, its modulations anew from the timestep and the trunk's state.

Source: Li et al. 2024 (MAR), https://arxiv.org/abs/2406.11838, section 3.2 and its code.
"""

import copy
import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache

from ar import ARModel


class PlainAR(nn.Module):
    """The weights of an AR model without a condition: `sample` of MAR's form, `loss` of ours."""

    def __init__(self, model: ARModel) -> None:
        super().__init__()
        self.tokens, self.token_dim = model.config.tokens, model.config.token_dim
        self.draws, self.location = model.config.draws, model.config.timestep_location
        self.null = nn.Parameter(model.null.detach().clone())
        self.trunk: Any = copy.deepcopy(model.trunk)
        self.net: Any = copy.deepcopy(model.head.net)

    @torch.no_grad()
    def sample(self, noise: Float[Tensor, "B K D"], steps: int) -> Float[Tensor, "B K D"]:
        """Turn noise into tokens, one after the other, with Euler's steps along the velocity."""
        cache = DynamicCache(config=self.trunk.decoder.config)
        start = self.trunk.start + self.trunk.positions[0]
        new = torch.stack([self.null, start]).expand(len(noise), 2, -1)  # [B, 2, W]
        tokens: list[Tensor] = []
        for k in range(noise.shape[1]):
            place = [0, self._place(0)] if k == 0 else [self._place(k)]
            states = self.trunk.decoder(
                inputs_embeds=new, position_ids=torch.tensor([place]), past_key_values=cache
            ).last_hidden_state[:, -1]
            x = noise[:, k]
            for step in range(steps):
                t = torch.full((len(x),), step / steps)
                x = x + mar_head(self.net, x, t, states) / steps
            tokens.append(x)
            if k + 1 < noise.shape[1]:
                new = (self.trunk.embed(x) + self.trunk.positions[k + 1])[:, None]
        return torch.stack(tokens, dim=1)

    def loss(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, ""]:
        """Squared error of the velocity, each token with timesteps of its own."""
        trunk, batch = self.trunk, len(tokens)
        seen = F.pad(trunk.embed(tokens[:, :-1]), (0, 0, 1, 0)) + trunk.positions[: self.tokens]
        start = F.pad(trunk.start[None], (0, 0, 0, self.tokens - 1))
        x = torch.cat([self.null.expand(batch, 1, -1), seen + start], dim=1)  # [B, 1 + K, W]
        places = torch.tensor([[0, *map(self._place, range(self.tokens))]])
        states = trunk.decoder(inputs_embeds=x, position_ids=places).last_hidden_state[:, 1:]
        data, states = (each.repeat(self.draws, 1, 1) for each in (tokens, states))
        t = (torch.randn(data.shape[:2]) + self.location).sigmoid()
        noise = torch.randn(data.shape)
        guess = time_head(self.net, t[..., None] * data + (1 - t[..., None]) * noise, t, states)
        return F.mse_loss(guess.float(), data - noise)

    def _place(self, k: int) -> int:
        return int(self.trunk.context_length + k)


def mar_head(
    net: Any, x: Float[Tensor, "B D"], t: Float[Tensor, "B"], states: Float[Tensor, "B W"]
) -> Float[Tensor, "B D"]:
    """MAR's head: every block modulated by timestep and state."""
    y = F.silu(net.time(waves(t, 128)) + net.condition(states))  # [B, V]
    h = net.embed(x)
    for block in net.blocks:
        shift, scale, gate = block.modulate(y).chunk(3, dim=-1)
        h = h + gate * block.mlp(block.norm(h) * (1 + scale) + shift)
    shift, scale = net.modulate(y).chunk(2, dim=-1)
    return net.to_token(net.norm(h) * (1 + scale) + shift)


def time_head(
    net: Any, x: Float[Tensor, "B K D"], t: Float[Tensor, "B K"], states: Float[Tensor, "B K W"]
) -> Float[Tensor, "B K D"]:
    """Our head: every block modulated by the timestep, here of each token."""
    modulations = net.modulate(net.time(waves(t, 64)))  # [B, K, 3 V for each block]
    h = net.embed(x) + net.condition(states)
    for block, part in zip(net.blocks, modulations.chunk(len(net.blocks), dim=-1), strict=True):
        shift, scale, gate = part.chunk(3, dim=-1)
        h = h + (1 + gate) * block.mlp(block.norm(h) * (1 + scale) + shift)
    return net.to_token(net.norm(h))


def waves(t: Float[Tensor, "*n"], frequencies: int) -> Float[Tensor, "*n F"]:
    """Cosines and sines of a timestep."""
    rates = torch.exp(-math.log(10_000) * torch.arange(frequencies) / frequencies)
    angles = 1_000 * t[..., None] * rates
    return torch.cat([angles.cos(), angles.sin()], dim=-1)

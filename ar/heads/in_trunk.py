"""The single-transformer scheme: noisy copies of the tokens run through the trunk themselves.

    B batch   C places of the condition   K tokens   D channels of a token   W width
    T noise levels   n = C + K + T K places

One sequence holds the condition, the clean tokens (start, z_1 .. z_{K-1}) and after them T noisy
copies of every token. A noisy copy of z_k sees what is before z_k, clean, and itself; clean places
see clean places before them; nothing else sees a noisy copy. So one pass trains all tokens at some
noise levels, and sampling keeps a cache of clean tokens only.

Source: Su 2024, "Reflections on autoregressive image generation: a diffusion loss in one
transformer", https://kexue.fm/archives/10197; the mask is that of ACDiT, Hu et al. 2024, section
3.2, https://arxiv.org/abs/2412.07720.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ARConfig
from ..settings import Sampling
from ..trunk import Condition, Trunk
from .denoisers import FREQUENCIES, waves
from .head import Draw, Seen
from .likelihood import log_density
from .timesteps import TimestepHead, solve

TOGETHER = 64
"""Sequences whose likelihood is followed together, for memory."""


class InTrunkHead(TimestepHead):
    """Embeds noisy tokens for the trunk, and reads the clean ones from its states."""

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.embed = nn.Linear(config.token_dim, config.width)
        self.time = nn.Sequential(
            nn.Linear(2 * FREQUENCIES, config.width),
            nn.SiLU(),
            nn.Linear(config.width, config.width),
        )
        self.positions = nn.Parameter(torch.randn(config.tokens, config.width) * 0.02)
        self.norm = nn.LayerNorm(config.width)
        self.to_token = nn.Linear(config.width, config.token_dim)
        nn.init.zeros_(self.to_token.weight)
        nn.init.zeros_(self.to_token.bias)

    def loss_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """Weighted squared error, the mean over channels and over `draws` noises and timesteps."""

        def errors_at(t: Tensor) -> Tensor:
            return self.errors_through(trunk, tokens, context, condition, t, generator)

        return self.weighted(errors_at, tokens, generator)

    def log_prob_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        """See `log_density`."""
        batch = range(0, len(tokens), TOGETHER)
        parts = [slice(i, i + TOGETHER) for i in batch]
        return torch.cat(
            [
                self._log_prob(
                    trunk,
                    tokens[part].float(),
                    context[part],
                    condition.rows(part),
                    floor,
                    generator,
                )
                for part in parts
            ]
        )

    def _log_prob(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B K"]:
        def guess(x: Tensor, t: float) -> Tensor:
            at = torch.full((1, len(tokens), 1), t, device=x.device)
            noisy = x.view(1, *tokens.shape)
            output = self.output_through(trunk, noisy, at, context, condition)
            return self.path.to_data(output, noisy, at[..., None]).flatten(0, 2)

        # A token's noisy copy is seen by none of the others: the rows are apart.
        return log_density(guess, tokens.flatten(0, 1), floor, generator).view(tokens.shape[:2])

    def drawing(self, sampling: Sampling) -> Draw:
        """Prepare a solver; each of its steps is a pass of one place through the trunk."""
        times = self.path.times(sampling.steps, sampling.shift)
        at = torch.tensor(times[:-1], device=self.positions.device)
        clock = self._clocks(at)  # [S, W]

        def draw(seen: Seen, noise: Tensor) -> Tensor:
            assert seen.peek is not None
            peek, place = seen.peek, self.positions[seen.position]

            def plain(x: Tensor, step: int) -> Tensor:
                row = self.embed(x.to(place.dtype)) + clock[step] + place
                output = self.to_token(self.norm(peek(row[:, None])))
                return self.path.to_data(output.float(), x, at[step, None])

            return solve(plain, seen, noise, times, sampling)

        return draw

    def _clocks(self, t: Float[Tensor, "*n"]) -> Float[Tensor, "*n W"]:
        """Embed timesteps."""
        return self.time(waves(self.path.clock(t), FREQUENCIES).to(self.positions.dtype))

    def output_through(
        self,
        trunk: Trunk,
        x: Float[Tensor, "T B K D"],
        t: Float[Tensor, "T #B 1"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
    ) -> Float[Tensor, "T B K D"]:
        levels, _, count, _ = x.shape
        clock = self._clocks(t)  # [T, B, 1, W]
        rows = self.embed(x.to(self.positions.dtype)) + clock + self.positions
        rows = rows.transpose(0, 1).flatten(1, 2)  # [B, T K, W]
        clean = trunk.sequence(context[:, :-1])
        states = trunk.run(
            torch.cat([condition.states, clean, rows], dim=1),
            noisy_mask(condition.keep, count, levels),
            noisy_places(trunk, condition.keep.shape[1], count, levels),
        ).last_hidden_state[:, -levels * count :]
        states = states.unflatten(1, (levels, count)).transpose(0, 1)
        return self.to_token(self.norm(states)).float()


def noisy_places(trunk: Trunk, conditions: int, tokens: int, levels: int) -> Int[Tensor, "n"]:
    """Number the places: a noisy copy stands behind the last clean one that it sees."""
    clean = trunk.places(conditions, tokens)
    return torch.cat([clean, (clean[-tokens:] + 1).repeat(levels)])


def noisy_mask(keep: Bool[Tensor, "B C"], tokens: int, levels: int) -> Bool[Tensor, "B 1 n n"]:
    """Which place sees which, see this file's beginning."""
    before = keep.shape[1] + tokens
    n = before + levels * tokens
    place = torch.arange(n, device=keep.device)
    last_seen = torch.where(place < before, place, keep.shape[1] + (place - before) % tokens)
    clean = F.pad(keep, (0, n - keep.shape[1]), value=True) & (place < before)  # [B, n]
    own = torch.eye(n, dtype=torch.bool, device=keep.device)
    return ((clean[:, None] & (place <= last_seen[:, None])) | own)[:, None]

"""The flow decoder: pixels from any prefix, drawn along a path from noise.

    B batch   N patches   P values of a patch   K tokens   W width   D channels of a token
    L layers   M modulations of a block

The mask tokens of `Decoder` also carry the noisy patches, and leave as a guess of the clean ones,
from which the velocity follows: v = (guess - x) / (1 - t). A transformer that had to predict the
velocity of raw patches would spend its width on passing their noise through. The blocks are
modulated by the timestep alone, so that a sampler computes that once per step, for all images.

Sources: the prediction: Li and He 2025, "Back to Basics: Let Denoising Generative Models Denoise"
(JiT), section 4, https://arxiv.org/abs/2511.13720; the modulation: Peebles and Xie 2022, "Scalable
Diffusion Models with Transformers" (DiT), section 3.2, https://arxiv.org/abs/2212.09748; decoding a
prefix so: Wen et al. 2025 (Semanticist), https://arxiv.org/abs/2503.08685.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from .config import OrdererConfig
from .decoder import Placed, Rebuilt
from .flow import euler, guide, heun, logit_normal_timesteps, on_path, uniform_times
from .layers import BlockParts
from .positions import Grid

FREQUENCIES = 64
"""Sines and as many cosines that describe a timestep."""

NEAREST = 0.05
"""Least 1 - t that the velocity's error is divided by, JiT's: at t = 1 it has no bound."""

SEED = 0
"""Of the noise that all images start from where no generator is given."""


class FlowDecoder(Placed):
    """Predicts clean patches from noisy ones and the tokens that are kept."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__(config)
        width, layers = config.width, config.decoder_layers
        self.config = config
        self.embed_noisy = nn.Linear(config.patch_values, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU())
        self.modulate = nn.Linear(width, layers * 6 * width)
        self.blocks = nn.ModuleList(
            ModulatedBlock(width, config.heads, config.mlp_ratio) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_patch = nn.Linear(width, config.patch_values)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        noisy: Float[Tensor, "B N P"],
        t: Float[Tensor, "B"],
        grid: Grid | None = None,
    ) -> tuple[Float[Tensor, "B N P"], Float[Tensor, "B N W"]]:
        """Guess the clean patches of a grid (that of the config by default)."""
        masks, x = self.place(tokens, keep, grid or self.grid)
        return self._predict(noisy, masks, x, self.modulations(t))

    def rebuild(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        patches: Float[Tensor, "B N P"],
        grid: Grid,
        generator: torch.Generator | None = None,
    ) -> Rebuilt:
        """Guess patches from noisy copies of them; the term is the mean over all draws.

        Its guess is that of the first draw: what one step from there to t = 1 would give.
        """
        batch, draws = len(patches), self.config.decoder_draws
        data, tokens = patches.repeat(draws, 1, 1), tokens.repeat(draws, 1, 1)
        t = logit_normal_timesteps(len(data), self.config.decoder_timesteps, data.device, generator)
        noise = torch.randn(data.shape, device=data.device, generator=generator).to(data)
        keep = self._some_without_tokens(keep.repeat(draws, 1), generator)
        noisy = on_path(data, noise, t[:, None].to(data))
        guess, states = self(tokens, keep, noisy, t, grid)
        error = (guess.float() - data).square().mean(dim=(1, 2))  # [draws * B]
        if self.config.decoder_weighting == "velocity":
            error = error / (1 - t).clamp(min=NEAREST).square()
        return Rebuilt(error.mean(), guess[:batch], states[:batch])

    def decode(
        self,
        tokens: Float[Tensor, "B K D"],
        keep: Bool[Tensor, "B K"],
        grid: Grid,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B N P"]:
        """Draw patches, with the solver and the steps of the config.

        Without a generator all images start from one noise, the same at every call: what is drawn
        of an image then depends on its tokens alone, not on the batch.

        The path is followed in fp32 at least, whatever the weights are.
        """
        steps, scale = self.config.decoder_steps, float(self.config.decoder_guidance)
        noise = self._noise(len(tokens), grid, generator)
        noise = noise.to(torch.promote_types(noise.dtype, self.null.dtype))
        if scale != 1:
            tokens = torch.cat([tokens, tokens])
            keep = torch.cat([keep, torch.zeros_like(keep)])
        masks, placed = self.place(tokens, keep, grid)
        modulations = self.modulations(torch.arange(steps, device=tokens.device) / steps)

        def velocity(x: Tensor, step: int) -> Tensor:
            both = x if scale == 1 else torch.cat([x, x])
            data, _ = self._predict(both, masks, placed, modulations[step, None])
            if scale != 1:
                conditional, unconditional = data.chunk(2)
                data = guide(conditional, unconditional, scale)
            return (data.to(x) - x) / (1 - step / steps)

        solve = {"euler": euler, "heun": heun}[self.config.decoder_solver]
        return solve(velocity, noise, uniform_times(steps)).to(self.null)

    def modulations(self, t: Float[Tensor, "n"]) -> Float[Tensor, "n L M"]:
        """Shift, scale and gate of attention and MLP in every block at each timestep."""
        rates = torch.exp(
            -math.log(10_000) * torch.arange(FREQUENCIES, device=t.device) / FREQUENCIES
        )
        angles = 1_000 * t[:, None] * rates  # [n, FREQUENCIES]
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1).to(self.null)
        modulations = self.modulate(self.time(waves))
        return modulations.unflatten(-1, (len(self.blocks), -1))

    def _predict(
        self,
        noisy: Float[Tensor, "B N P"],
        masks: Float[Tensor, "B N W"],
        tokens: Float[Tensor, "B K W"],
        modulations: Float[Tensor, "#B L M"],
    ) -> tuple[Float[Tensor, "B N P"], Float[Tensor, "B N W"]]:
        number = masks.shape[1]
        x = torch.cat(
            [masks + self.embed_noisy(noisy.to(self.null)), tokens], dim=1
        )  # [B, N + K, W]
        states = x
        for layer, block in enumerate(self.blocks, start=1):
            x = block(x, modulations[:, layer - 1])
            states = x if layer == (len(self.blocks) + 1) // 2 else states
        return self.to_patch(self.norm(x[:, :number])), states[:, :number]

    def _some_without_tokens(
        self, keep: Bool[Tensor, "B K"], generator: torch.Generator | None
    ) -> Bool[Tensor, "B K"]:
        if not self.config.decoder_drop:
            return keep
        drawn = torch.rand(len(keep), 1, device=keep.device, generator=generator)
        return keep & (drawn >= self.config.decoder_drop)

    def _noise(
        self, batch: int, grid: Grid, generator: torch.Generator | None
    ) -> Float[Tensor, "{batch} N P"]:
        shape, device = (math.prod(grid), self.to_patch.out_features), self.null.device
        if generator is not None:
            return torch.randn(batch, *shape, device=device, generator=generator)
        fixed = torch.randn(*shape, generator=torch.Generator().manual_seed(SEED))  # on any device
        return fixed.to(device).expand(batch, *shape)


class ModulatedBlock(BlockParts):
    """`Block`, its two inputs shifted and scaled, its two outputs gated.

    Where all modulations are 0, as they start, it is that block: a gate that starts closed (DiT's)
    only pays in models of many layers.
    """

    def forward(
        self, x: Float[Tensor, "B S W"], modulation: Float[Tensor, "#B M"]
    ) -> Float[Tensor, "B S W"]:
        parts = modulation[:, None].chunk(6, dim=-1)  # each [B or 1, 1, W]
        shift_1, scale_1, gate_1, shift_2, scale_2, gate_2 = parts
        x = x + (1 + gate_1) * self.attention(self.norm_1(x) * (1 + scale_1) + shift_1)
        return x + (1 + gate_2) * self.mlp(self.norm_2(x) * (1 + scale_2) + shift_2)

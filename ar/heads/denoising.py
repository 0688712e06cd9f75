"""Heads that denoise a token: flow matching and diffusion, by the path.

B batch   K tokens   R rows (one token of one image)   D channels of a token   W width
"""

import torch
from jaxtyping import Float
from torch import Tensor

from ..config import ARConfig
from ..settings import Sampling
from ..trunk import Condition, Trunk
from .denoisers import TimeDenoiser, TokenDenoiser
from .head import Draw, Seen, StateHead
from .likelihood import ROWS, log_density
from .timesteps import TimestepHead, solve


class DenoisingHead(TimestepHead, StateHead):
    """Predicts a token from its noisy copy and the trunk's state, by a small net.

    Where the condition all but decides a token, a net that must predict the velocity spends itself
    on passing the noise through, so it predicts the token by default.

    Sources: Li et al. 2024 (MAR), https://arxiv.org/abs/2406.11838; the prediction: Li and He 2025,
    "Back to Basics: Let Denoising Generative Models Denoise", section 3,
    https://arxiv.org/abs/2511.13720.
    """

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        make = {"time": TimeDenoiser, "token": TokenDenoiser}[config.modulation]
        self.net = make(config.token_dim, config.width, config.head_width, config.head_layers)

    def loss(
        self,
        tokens: Float[Tensor, "B *K D"],
        states: Float[Tensor, "B *K W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B *K"]:
        """Weighted squared error, the mean over channels and over `draws` noises and timesteps."""
        return self.weighted(lambda t: self.errors(tokens, states, t, generator), tokens, generator)

    def errors(
        self,
        tokens: Float[Tensor, "B *K D"],
        states: Float[Tensor, "B *K W"],
        t: Float[Tensor, "T #B *#K"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B *K"]:
        """Squared error of what the net predicts at each of T timesteps, unweighted."""
        return self.squared_errors(lambda x: self._output(x, states, t), tokens, t, generator)

    def _output(
        self,
        x: Float[Tensor, "T B *K D"],
        states: Float[Tensor, "B *K W"],
        t: Float[Tensor, "T #B *#K"],
    ) -> Float[Tensor, "T B *K D"]:
        return self.net(self.path.scale(t)[..., None] * x, self.path.clock(t), states).float()

    def output_through(
        self,
        trunk: Trunk,
        x: Float[Tensor, "T B K D"],
        t: Float[Tensor, "T #B 1"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
    ) -> Float[Tensor, "T B K D"]:
        return self._output(x, trunk(context[:, :-1], condition), t)

    def drawing(self, sampling: Sampling) -> Draw:
        """Prepare a solver."""
        times = self.path.times(sampling.steps, sampling.shift)
        at = torch.tensor(times[:-1], device=next(self.net.parameters()).device)
        schedule, scales = self.net.schedule(self.path.clock(at)), self.path.scale(at)

        def draw(seen: Seen, noise: Tensor) -> Tensor:
            step_given = self.net.given(seen.rows, schedule)

            def plain(x: Tensor, step: int) -> Tensor:
                output = step_given(scales[step] * x, step).float()
                return self.path.to_data(output, x, at[step, None])

            return solve(plain, seen, noise, times, sampling)

        return draw

    def log_prob(
        self,
        tokens: Float[Tensor, "*n D"],
        states: Float[Tensor, "*n W"],
        floor: float,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*n"]:
        """See `log_density`."""
        rows = zip(
            tokens.flatten(0, -2).split(ROWS), states.flatten(0, -2).split(ROWS), strict=True
        )
        parts = [self._log_prob(each.float(), state, floor, generator) for each, state in rows]
        return torch.cat(parts).view(tokens.shape[:-1])

    def _log_prob(
        self,
        tokens: Float[Tensor, "R D"],
        states: Float[Tensor, "R W"],
        floor: float,
        generator: torch.Generator | None,
    ) -> Float[Tensor, "R"]:
        def guess(x: Tensor, t: float) -> Tensor:
            at = torch.tensor([t], device=x.device, dtype=torch.float32)
            output = self.net(self.path.scale(at) * x, self.path.clock(at), states)
            return self.path.to_data(output.float(), x, at)

        return log_density(guess, tokens, floor, generator)

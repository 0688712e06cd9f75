"""Heads that denoise a token: flow matching and diffusion, by the path.

B batch   K tokens   R rows (one token of one image)   D channels of a token   W width
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from orderer.flow import ancestral, euler, guide, heun, multistep, on_path

from ..config import ARConfig
from ..settings import Sampling
from ..trunk import Condition, Trunk
from .denoisers import TimeDenoiser, TokenDenoiser
from .head import Draw, Seen, StateHead
from .likelihood import ROWS, log_density
from .paths import DiffusionPath, FlowPath

SOLVERS = {"euler": euler, "heun": heun, "multistep": multistep}

Guess = Callable[[Float[Tensor, "R D"], int], Float[Tensor, "R D"]]
"""The data, given noisy tokens at the i-th timestep of a solver."""


class DenoisingHead(StateHead):
    """Predicts a token from its noisy copy.

    Where the condition all but decides a token, a net that must predict the velocity spends itself
    on passing the noise through, so it predicts the token by default.

    Sources: Li et al. 2024 (MAR), https://arxiv.org/abs/2406.11838; the prediction: Li and He 2025,
    "Back to Basics: Let Denoising Generative Models Denoise", section 3,
    https://arxiv.org/abs/2511.13720.
    """

    has_likelihood = True
    has_timesteps = True

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.path = DiffusionPath(config) if config.head == "diffusion" else FlowPath(config)
        make = {"time": TimeDenoiser, "token": TokenDenoiser}[config.modulation]
        self.net = make(config.token_dim, config.width, config.head_width, config.head_layers)

    def loss(
        self,
        tokens: Float[Tensor, "B *K D"],
        states: Float[Tensor, "B *K W"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "B *K"]:
        """Weighted squared error, the mean over channels and over `draws` noises and timesteps.

        The tokens of an image share its timesteps, so that modulations by time, half of the head's
        work, are computed once per image and draw.
        """
        draws = self.config.draws
        t = self.path.draw(draws * len(tokens), tokens.device, generator)
        t = t.view(draws, len(tokens), *[1] * (tokens.ndim - 2))  # [draws, B, 1]
        return (self.path.weight(t) * self.errors(tokens, states, t, generator)).mean(dim=0)

    def errors(
        self,
        tokens: Float[Tensor, "B *K D"],
        states: Float[Tensor, "B *K W"],
        t: Float[Tensor, "T #B *#K"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B *K"]:
        """Squared error of what the net predicts at each of T timesteps, unweighted."""
        data, noise, x = noisy_copies(tokens, t, generator)
        target = self.path.target(data, noise, t[..., None])
        return (self._output(x, states, t) - target).square().mean(dim=-1)

    def guess_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        t: Float[Tensor, "T #B 1"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B K D"]:
        _, _, x = noisy_copies(tokens, t, generator)
        output = self._output(x, trunk(context[:, :-1], condition), t)
        return self.path.to_data(output, x, t[..., None])

    def draw_timesteps(
        self, number: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{number}"]:
        return self.path.draw(number, device, generator)

    def _output(
        self,
        x: Float[Tensor, "T B *K D"],
        states: Float[Tensor, "B *K W"],
        t: Float[Tensor, "T #B *#K"],
    ) -> Float[Tensor, "T B *K D"]:
        return self.net(self.path.scale(t)[..., None] * x, self.path.clock(t), states).float()

    def errors_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        t: Float[Tensor, "T #B 1"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B K"]:
        return self.errors(tokens, trunk(context[:, :-1], condition), t, generator)

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return noises(sampling), self.config.token_dim

    def drawing(self, sampling: Sampling) -> Draw:
        """Prepare a solver."""
        times = self.path.times(sampling.steps, sampling.shift)
        at = torch.tensor(times[:-1], device=next(self.net.parameters()).device)
        schedule, scales = self.net.schedule(self.path.clock(at)), self.path.scale(at)

        def draw(seen: Seen, noise: Tensor, guidance_scale: float) -> Tensor:
            step_given = self.net.given(seen.both(), schedule)

            def plain(x: Tensor, step: int) -> Tensor:
                output = step_given(scales[step] * x, step).float()
                return self.path.to_data(output, x, at[step, None])

            return solve(plain, seen, noise, guidance_scale, times, sampling)

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


def noisy_copies(
    tokens: Float[Tensor, "B *K D"],
    t: Float[Tensor, "T #B *#K"],
    generator: torch.Generator | None = None,
) -> tuple[Float[Tensor, "T B *K D"], Float[Tensor, "T B *K D"], Float[Tensor, "T B *K D"]]:
    """The tokens at each of T timesteps, noise of their own, and the points of the path."""
    data = tokens.float().expand(len(t), *tokens.shape)
    noise = torch.randn(data.shape, device=data.device, generator=generator)
    return data, noise, on_path(data, noise, t)


def noises(sampling: Sampling) -> int:
    """How many noises a solver starts from and adds, for the token that has most steps."""
    return max(sampling.steps, sampling.last_steps or 1) if sampling.solver == "sde" else 1


def solve(
    guess: Guess,
    seen: Seen,
    noise: Float[Tensor, "R S D"],
    guidance_scale: float,
    times: list[float],
    sampling: Sampling,
) -> Float[Tensor, "R D"]:
    """Follow guesses to a token; where there are unguided rows too, guesses of both."""
    if seen.unguided is not None:
        guess = guided(guess, guidance_scale, sampling.match_norm)
    return follow(guess, noise, times, sampling)


def guided(guess: Guess, guidance_scale: float, match_norm: bool) -> Guess:
    """Guess guided and unguided rows together, and guide the ones by the others."""

    def both(x: Tensor, step: int) -> Tensor:
        conditional, unconditional = guess(torch.cat([x, x]), step).chunk(2)
        return guide_tokens(conditional, unconditional, guidance_scale, match_norm)

    return both


def guide_tokens(
    conditional: Float[Tensor, "R D"],
    unconditional: Float[Tensor, "R D"],
    guidance_scale: float,
    match_norm: bool,
) -> Float[Tensor, "R D"]:
    """`guide`, and give the outcome the norm that it had without guidance, if that is wanted."""
    data = guide(conditional, unconditional, guidance_scale)
    if match_norm:
        norm = data.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(data.dtype).tiny)
        data = data * conditional.norm(dim=-1, keepdim=True) / norm
    return data


def follow(
    guess: Guess, noise: Float[Tensor, "R S D"], times: list[float], sampling: Sampling
) -> Float[Tensor, "R D"]:
    """Follow guesses of the data from noise to a token, with the chosen solver."""

    def velocity(x: Tensor, step: int) -> Tensor:
        return (guess(x, step) - x) / (1 - times[step])

    if sampling.solver == "sde":
        return ancestral(
            velocity, noise[:, 0], times, lambda step: sampling.temperature * noise[:, step + 1]
        )
    return SOLVERS[sampling.solver](velocity, sampling.temperature * noise[:, 0], times)

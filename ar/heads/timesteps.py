"""What heads that denoise a token have in common: timesteps, noisy copies, and solvers.

B batch   K tokens   R rows (one token of one image)   S noises for a token   T timesteps
D channels of a token
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from orderer.flow import ancestral, euler, heun, multistep, on_path

from ..config import ARConfig
from ..settings import Sampling
from ..trunk import Condition, Trunk
from .head import Head, Seen
from .paths import DiffusionPath, FlowPath

SOLVERS = {"euler": euler, "heun": heun, "multistep": multistep}

Guess = Callable[[Float[Tensor, "R D"], int], Float[Tensor, "R D"]]
"""The data, given noisy tokens at the i-th timestep of a solver."""
Output = Callable[[Float[Tensor, "T B *K D"]], Float[Tensor, "T B *K D"]]
"""What a net says of noisy tokens; what that means, the path knows."""


class TimestepHead(Head):
    """A head that learns a token from its noisy copies."""

    has_likelihood = True
    has_timesteps = True

    def __init__(self, config: ARConfig) -> None:
        super().__init__(config)
        self.path = DiffusionPath(config) if config.head == "diffusion" else FlowPath(config)

    @abstractmethod
    def output_through(
        self,
        trunk: Trunk,
        x: Float[Tensor, "T B K D"],
        t: Float[Tensor, "T #B 1"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
    ) -> Float[Tensor, "T B K D"]:
        """What the net says of noisy tokens `x`; see `loss_through`."""

    def errors_through(
        self,
        trunk: Trunk,
        tokens: Float[Tensor, "B K D"],
        context: Float[Tensor, "B K D"],
        condition: Condition,
        t: Float[Tensor, "T #B 1"],
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "T B K"]:
        def output(x: Tensor) -> Tensor:
            return self.output_through(trunk, x, t, context, condition)

        return self.squared_errors(output, tokens, t, generator)

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
        output = self.output_through(trunk, x, t, context, condition)
        return self.path.to_data(output, x, t[..., None])

    def draw_timesteps(
        self, number: int, device: torch.device, generator: torch.Generator | None = None
    ) -> Float[Tensor, "{number}"]:
        return self.path.draw(number, device, generator)

    def noise_shape(self, sampling: Sampling) -> tuple[int, int]:
        return noises(sampling), self.config.token_dim

    def squared_errors(
        self,
        output: Output,
        tokens: Float[Tensor, "B *K D"],
        t: Float[Tensor, "T #B *#K"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, "T B *K"]:
        """The mean over channels, at each of T timesteps, unweighted."""
        data, noise, x = noisy_copies(tokens, t, generator)
        return (output(x) - self.path.target(data, noise, t[..., None])).square().mean(dim=-1)

    def weighted(
        self,
        errors_at: Callable[[Float[Tensor, "T B *ones"]], Float[Tensor, "T B *K"]],
        tokens: Float[Tensor, "B *K D"],
        generator: torch.Generator | None,
    ) -> Float[Tensor, "B *K"]:
        """The loss: weighted errors, the mean over `draws` timesteps.

        The tokens of an image share its timesteps, so that what depends on time alone (modulations
        are half of a small net's work) is computed once for each image and draw.
        """
        draws = self.config.draws
        t = self.path.draw(draws * len(tokens), tokens.device, generator)
        t = t.view(draws, len(tokens), *[1] * (tokens.ndim - 2))  # [draws, B, 1]
        return (self.path.weight(t) * errors_at(t)).mean(dim=0)


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
    times: list[float],
    sampling: Sampling,
) -> Float[Tensor, "R D"]:
    """Follow guesses to a token, made of all rows together and guided."""

    def guided(x: Tensor, step: int) -> Tensor:
        said = guess(x.repeat(1 + len(seen.without), 1), step)
        return guided_tokens(seen, said, sampling.match_norm)

    return follow(guided, noise, times, sampling)


def guided_tokens(
    seen: Seen, said: Float[Tensor, "rows D"], match_norm: bool
) -> Float[Tensor, "R D"]:
    """`Seen.guided`, and give the outcome the norm that it had without, if that is wanted."""
    data = seen.guided(said)
    if match_norm and seen.without:
        norm = data.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(data.dtype).tiny)
        data = data * said[: len(data)].norm(dim=-1, keepdim=True) / norm
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

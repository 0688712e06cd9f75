"""How tokens are drawn: the settings of sampling, with their checks."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

Guidance = Literal["constant", "ramp"]
Solver = Literal["euler", "heun", "multistep", "sde"]
CacheKind = Literal["dynamic", "static"]
MOST_SHIFT = 1e3
"""Of the solver's steps, either way: beyond it they lie on one another in fp32."""
CHOICES = {
    "guidance": get_args(Guidance),
    "solver": get_args(Solver),
    "cache": get_args(CacheKind),
}
"""What the settings of these names may be."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How an AR model draws tokens.

    Raises:
        ValueError: for a value out of its range, naming it.
    """

    guidance_scale: float = 1.5
    """Away from what is drawn without the condition; 1.0 is off."""
    context_scale: float = 1.0
    """Away from what is drawn without the tokens before, by a model with a `context_drop`; 1.0 is
    off. Source: history guidance, Song et al. 2025, https://arxiv.org/abs/2502.06764."""
    guidance: Guidance = "constant"
    """`ramp` rises linearly over the tokens and has the whole scales at the last one."""
    match_norm: bool = False
    """Whether what was guided keeps the norm that it had: strong guidance otherwise inflates it. Of
    heads that predict a token: those that denoise, and `regression`."""
    temperature: float = 1.0
    """Deviation of the noise: of the start, for `sde` of each step; of the chosen Gaussian; of what
    `energy` turns into tokens. Codes are drawn from shares that it sharpens or flattens."""
    solver: Solver = "euler"
    """Of heads that denoise."""
    steps: int = 15
    """Of the solver, per token."""
    shift: float = 1.0
    """1 spaces the steps evenly over t; below 1 they lie closer together near the data, where few
    are missed most, above 1 near noise. See `shifted`."""
    last_steps: int | None = None
    """Steps of the last token, those between in proportion; null: as many for all. Later tokens are
    better known from those before, and take fewer."""
    cache: CacheKind = "dynamic"
    """How the trunk keeps what it has read: growing, or whole from the start, for compilers."""

    def __post_init__(self) -> None:
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )
        for name in ("steps", "last_steps"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be at least 1, a whole number, got {value}")
        for name in ("guidance_scale", "context_scale", "temperature"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

        if not 1 / MOST_SHIFT <= self.shift <= MOST_SHIFT:
            raise ValueError(
                f"shift must lie in {1 / MOST_SHIFT:g}..{MOST_SHIFT:g}, got {self.shift}"
            )

    @property
    def scales(self) -> dict[str, float]:
        """Of the guidance by the `condition` and by the `context`, as far as they are not off."""
        scales = {"condition": self.guidance_scale, "context": self.context_scale}
        return {name: scale for name, scale in scales.items() if scale != 1.0}

    def scales_at(self, k: int, tokens: int) -> tuple[float, ...]:
        """The `scales` of token k (from 0) of so many."""
        share = 1.0 if self.guidance == "constant" else (k + 1) / tokens
        return tuple(1 + (scale - 1) * share for scale in self.scales.values())

    def steps_at(self, k: int, tokens: int) -> int:
        """The steps of token k (from 0) of so many."""
        if self.last_steps is None or tokens == 1:
            return self.steps
        return round(self.steps + (self.last_steps - self.steps) * k / (tokens - 1))

    def with_steps(self, steps: int) -> "Sampling":
        """The same with as many steps for every token."""
        return replace(self, steps=steps, last_steps=None)

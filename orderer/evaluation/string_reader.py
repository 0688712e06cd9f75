"""A reader of strings: a small network that names the characters of an image from its tokens.

    N images   B batch   K tokens   D channels of a token   P places of a string   A characters

All tokens at once go through two hidden layers; every place has a classifier of its own. Patches
are read in the same way, which says what the reader itself could read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

NOTHING = -1
"""In place of a character, past the end of a string."""
LEAST_DEVIATION = 1e-3


@dataclass(frozen=True, kw_only=True)
class StringReading:
    """How strings are read, and from which codes."""

    strings: int = 40_000
    """That readers learn from; the orderer has seen none of them."""
    steps: int = 1200
    """Updates of each reader."""
    batch_size: int = 256
    width: int = 512
    """Of the hidden layers."""
    learning_rate: float = 1e-3
    codes: int = 256
    """V, of each place and level."""
    levels: tuple[int, ...] = (1, 2, 4)
    """Numbers of levels with which tokens are also read as codes."""

    def __post_init__(self) -> None:
        for name in ("strings", "steps", "batch_size", "width", "codes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        if not self.levels or min(self.levels) < 1:
            raise ValueError(f"levels must hold numbers of at least 1, got {list(self.levels)}")
        if self.codes > self.strings:
            raise ValueError(
                f"codes must be at most the {self.strings} strings they are found on, "
                f"got {self.codes}"
            )


class StringReader(nn.Module):
    """Reads tokens like those that it is made for."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, tokens: Float[Tensor, "N K D"], places: int, characters: int, width: int
    ) -> None:
        super().__init__()
        self.places = places
        self.register_buffer("mean", tokens.mean(dim=0))
        self.register_buffer("deviation", tokens.std(dim=0).clamp(min=LEAST_DEVIATION))
        self.net = nn.Sequential(
            nn.Linear(tokens[0].numel(), width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.GELU(),
            nn.LayerNorm(width),
            nn.Linear(width, places * characters),
        )

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B P A"]:
        flat = ((tokens - self.mean) / self.deviation).flatten(1)  # [B, K * D]
        return self.net(flat).unflatten(1, (self.places, -1))

    def loss(
        self, tokens: Float[Tensor, "B K D"], characters: Int[Tensor, "B P"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the characters that are there, in nats."""
        logits = self(tokens).flatten(0, 1)
        return F.cross_entropy(logits, characters.flatten(), ignore_index=NOTHING)

    @torch.no_grad()
    def read(self, tokens: Float[Tensor, "N K D"], *, chunk: int = 1000) -> Int[Tensor, "N P"]:
        """The likeliest character of every place, also of those past the end."""
        return torch.cat([self(some).argmax(dim=2) for some in tokens.split(chunk)])


def spelt(texts: Sequence[str], alphabet: str, places: int) -> Int[Tensor, "N P"]:
    """The number of every character, and NOTHING past the end.

    Raises:
        ValueError: for a text that is too long, or a character outside the alphabet.
    """
    numbers = torch.full((len(texts), places), NOTHING)
    for row, text in zip(numbers, texts, strict=True):
        if len(text) > places or not set(text) <= set(alphabet):
            raise ValueError(
                f"strings must have at most {places} characters of {alphabet}, got {text!r}"
            )
        row[: len(text)] = torch.tensor([alphabet.index(character) for character in text])
    return numbers


def recovered(read: Int[Tensor, "N P"], characters: Int[Tensor, "N P"]) -> dict[int, float]:
    """The share of characters that were read, by the length of their string."""
    right, lengths = read == characters, (characters != NOTHING).sum(dim=1)  # [N, P], [N]
    return {
        length: right[lengths == length].sum().item() / (lengths == length).sum().item() / length
        for length in sorted(set(lengths.tolist()))
    }

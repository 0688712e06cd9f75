"""A store of encoded tokens: a folder that is written once and then mapped into memory.

    tokens.safetensors   tokens [N, K, D], mean and std [K, D], and what they come from
    captions.json        the captions of each image

Letters: N images, K tokens, D channels of a token.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .atomic import written_whole

FORMAT = "sightline-tokens-1"
LEAST_STD = 1e-6
"""A channel that never varies is stored with this, so that dividing by std is safe."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenStore:
    """Tokens of a split, their captions and statistics, and the orderer that made them."""

    tokens: Float[Tensor, "N K D"]
    """Mapped into memory: read from the file as it is indexed."""
    captions: tuple[tuple[str, ...], ...]
    orderer_hash: str
    fingerprint: str
    """Of the pairs that were encoded."""
    mean: Float32[Tensor, "K D"]
    std: Float32[Tensor, "K D"]

    @classmethod
    def open(cls, path: str | Path) -> "TokenStore":
        """Open what `write_tokens` has written.

        Raises:
            FileNotFoundError: if there is no token store at the path.
            ValueError: if its files are damaged or do not belong together.
        """
        path = Path(path)
        if not (_tokens(path).is_file() and _captions(path).is_file()):
            raise FileNotFoundError(f"{path} is not a token store")
        try:
            with safe_open(_tokens(path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{_tokens(path)} is damaged: {error}") from None
        if about.get("format") != FORMAT:
            raise ValueError(f"{path} is not a token store of format {FORMAT}")
        return cls(
            tokens=tensors["tokens"],
            mean=tensors["mean"],
            std=tensors["std"],
            captions=_read_captions(path, about["captions_sha256"]),
            orderer_hash=about["orderer_hash"],
            fingerprint=about["fingerprint"],
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def check_orderer(self, orderer_hash: str) -> None:
        """Refuse another orderer than the one that made the tokens.

        Raises:
            ValueError: if the hashes differ.
        """
        if orderer_hash != self.orderer_hash:
            raise ValueError(
                f"these tokens were made by orderer {self.orderer_hash[:12]}, "
                f"not by orderer {orderer_hash[:12]}"
            )


def write_tokens(
    path: str | Path,
    tokens: Float[Tensor, "N K D"],
    captions: Sequence[Sequence[str]],
    *,
    orderer_hash: str,
    fingerprint: str,
) -> None:
    """Write a token store into the folder `path`, in place of an older one.

    Raises:
        ValueError: if there are no tokens, one is not finite, or captions are missing.
    """
    path = Path(path)
    if len(tokens) == 0 or not tokens.isfinite().all():
        raise ValueError(f"tokens for {path} must be finite and of at least one image")
    if len(captions) != len(tokens):
        raise ValueError(f"{len(tokens)} images need as many captions, got {len(captions)}")
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps([list(of_one) for of_one in captions])
    about = {
        "format": FORMAT,
        "orderer_hash": orderer_hash,
        "fingerprint": fingerprint,
        "captions_sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
    with written_whole(_captions(path)) as temporary:
        temporary.write_text(text)
    tensors = {"tokens": tokens.detach().cpu().contiguous(), **_statistics(tokens)}
    with written_whole(_tokens(path)) as temporary:
        save_file(tensors, temporary, metadata=about)


def _statistics(tokens: Float[Tensor, "N K D"]) -> dict[str, Float32[Tensor, "K D"]]:
    """Mean and standard deviation over images, for each position and channel."""
    std, mean = torch.std_mean(tokens.detach().cpu().double(), dim=0, correction=0)  # [K, D]
    return {"mean": mean.float(), "std": std.float().clamp_min(LEAST_STD)}


def _read_captions(path: Path, sha256: str) -> tuple[tuple[str, ...], ...]:
    raw = _captions(path).read_bytes()
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(f"{_captions(path)} does not belong to the tokens beside it")
    return tuple(tuple(of_one) for of_one in json.loads(raw))


def _tokens(path: Path) -> Path:
    return path / "tokens.safetensors"


def _captions(path: Path) -> Path:
    return path / "captions.json"

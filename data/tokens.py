"""A store of encoded tokens: one file, written once and then mapped into memory.

    tokens.safetensors   tokens [N, K, D], mean and std [K, D], and the pairs that they come from:
                         the keys and captions of the images, as JSON

Letters: N images, K tokens, D channels of a token.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .atomic import written_whole

FORMAT = "sightline-tokens-2"
STORE = "tokens.safetensors"
"""The file in a store's folder."""
LEAST_STD = 1e-6
"""A channel that never varies is stored with this, so that dividing by std is safe."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenStore:
    """Tokens of a split, their captions and statistics, and the orderer that made them."""

    tokens: Float[Tensor, "N K D"]
    """Mapped into memory: read from the file as it is indexed."""
    keys: tuple[str, ...]
    captions: tuple[tuple[str, ...], ...]
    counts: tuple[int, ...]
    """Images of each set that was encoded, one after the other."""
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
        if not _tokens(path).is_file():
            raise FileNotFoundError(f"{path} is not a token store")
        try:
            with safe_open(_tokens(path), framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{_tokens(path)} is damaged: {reason}") from None
        if about.get("format") != FORMAT:
            raise ValueError(f"{path} is not a token store of format {FORMAT}")
        try:
            store = cls._of(tensors, about)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
            store = None
        if store is None or not store._is_whole():
            raise ValueError(f"{_tokens(path)} is damaged: its parts do not belong together")
        return store

    @classmethod
    def _of(cls, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> "TokenStore":
        pairs = json.loads(tensors["pairs"].numpy().tobytes())
        return cls(
            tokens=tensors["tokens"],
            mean=tensors["mean"],
            std=tensors["std"],
            keys=tuple(pairs["keys"]),
            captions=tuple(tuple(of_one) for of_one in pairs["captions"]),
            counts=tuple(pairs["counts"]),
            orderer_hash=about["orderer_hash"],
            fingerprint=about["fingerprint"],
        )

    def _is_whole(self) -> bool:
        """Whether every image has its tokens, key and captions, and the statistics fit them."""
        shape = self.tokens.shape
        return (
            len(shape) == 3
            and self.tokens.is_floating_point()
            and all(
                s.shape == shape[1:] and s.dtype == torch.float32 for s in (self.mean, self.std)
            )
            and bool(
                self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()
            )
            and all(type(count) is int and count >= 0 for count in self.counts)
            and 0 < shape[0] == len(self.keys) == len(self.captions) == sum(self.counts)
            and all(self.captions)
            and all(isinstance(text, str) for text in chain(self.keys, *self.captions))
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
    keys: Sequence[str],
    captions: Sequence[Sequence[str]],
    *,
    counts: Sequence[int] | None = None,
    orderer_hash: str,
    fingerprint: str,
) -> None:
    """Write a token store into the folder `path`, in place of an older one.

    Args:
        path: a folder, made where there is none.
        tokens: of every image.
        keys: of every image.
        captions: of every image.
        counts: images of each set, where they come from several, one after the other.
        orderer_hash: of the orderer that made the tokens.
        fingerprint: of the pairs.

    Raises:
        ValueError: if there are no tokens, one is not finite, or keys or captions are missing.
    """
    path = Path(path)
    if len(tokens) == 0 or not tokens.isfinite().all():
        raise ValueError(f"tokens for {path} must be finite and of at least one image")
    counts = (len(tokens),) if counts is None else tuple(counts)
    if not len(keys) == len(captions) == sum(counts) == len(tokens):
        raise ValueError(
            f"{len(tokens)} images need as many keys and captions, got {len(keys)} and "
            f"{len(captions)}, of {sum(counts)} pairs"
        )
    path.mkdir(parents=True, exist_ok=True)
    pairs = {"keys": list(keys), "captions": [list(x) for x in captions], "counts": list(counts)}
    tensors = {
        "tokens": tokens.detach().cpu().contiguous(),
        "pairs": torch.frombuffer(bytearray(json.dumps(pairs).encode()), dtype=torch.uint8),
        **_statistics(tokens),
    }
    about = {"format": FORMAT, "orderer_hash": orderer_hash, "fingerprint": fingerprint}
    with written_whole(_tokens(path)) as temporary:
        save_file(tensors, temporary, metadata=about)


def _statistics(tokens: Float[Tensor, "N K D"]) -> dict[str, Float32[Tensor, "K D"]]:
    """Mean and standard deviation over images, for each position and channel."""
    std, mean = torch.std_mean(tokens.detach().cpu().double(), dim=0, correction=0)  # [K, D]
    return {"mean": mean.float(), "std": std.float().clamp_min(LEAST_STD)}


def _tokens(path: Path) -> Path:
    return path / STORE

"""The pairs that a curation has left, and what a rule is.

Letters: N pairs that are left, M pairs of images that are alike.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from .looks import Looks

Captions = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """The pairs that no rule has removed."""

    rows: Int64[np.ndarray, "N"]
    """Their indices in the source, in order."""
    captions: Captions
    """Those of each pair that every rule has passed, at least one."""
    looks: Looks | None = None
    """At their images; None until a rule needs them."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def seen(self) -> Looks:
        """The looks at the images, which are there when a rule that says so is applied."""
        assert self.looks is not None
        return self.looks

    def keep(self, which: Bool[np.ndarray, "N"]) -> "Candidates":
        """Remove the others."""
        kept = zip(self.captions, which.tolist(), strict=True)
        return Candidates(
            rows=self.rows[which],
            captions=tuple(captions for captions, stays in kept if stays),
            looks=None if self.looks is None else self.looks[which],
        )

    def narrow(self, captions: Sequence[tuple[str, ...]]) -> "Candidates":
        """Put fewer captions in place of each pair's; a pair that has none left goes."""
        narrowed = replace(self, captions=tuple(captions))
        return narrowed.keep(np.array([bool(of_one) for of_one in captions], dtype=bool))


def none_alike() -> Int64[np.ndarray, "0 2"]:
    """Say that no images are alike."""
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True, kw_only=True, eq=False)
class Left:
    """What a rule leaves."""

    candidates: Candidates
    alike: Int64[np.ndarray, "M 2"] = field(default_factory=none_alike)
    """The rows of images that it removed for being alike, and those of the images they are like: of
    the source, or, where the rule is one of leakage, of the evaluation sets."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule:
    """Says which pairs stay."""

    name: str
    options: Mapping[str, Any]
    """Its settings, for the record."""
    apply: Callable[[Candidates], Left]
    needs_images: bool = False
    is_leakage: bool = False
    """Whether images are removed for being like one of an evaluation set."""

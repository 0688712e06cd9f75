"""Which pairs of a source are worth training on: rules, one after the other, each counted.

A rule sees what the ones before it have left. The images are decoded once, all that are left when
the first rule needs them; so the rules of captions come first, and what is costly last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int64

from .candidates import Candidates, Rule, none_alike
from .looks import Scorer, look_at
from .sample import PairSource
from .similar import Progress, silent


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What one rule did."""

    rule: str
    options: Mapping[str, Any] = field(default_factory=dict)
    removed: int
    left: int
    alike: Int64[np.ndarray, "M 2"] = field(default_factory=none_alike)
    """See `Left`."""
    is_leakage: bool = False

    def record(self) -> dict[str, Any]:
        """Say it for a manifest."""
        return {"rule": self.rule, **self.options, "removed": self.removed, "left": self.left}


@dataclass(frozen=True, kw_only=True, eq=False)
class Curated:
    """The pairs that every rule has left."""

    candidates: Candidates
    steps: tuple[Step, ...]


def curate(
    source: PairSource,
    rules: Sequence[Rule],
    *,
    scorer: Scorer | None = None,
    progress: Progress = silent,
) -> Curated:
    """Apply rules in their order; what is damaged is removed and counted too.

    Args:
        source: of pairs.
        rules: in the order in which they are applied.
        scorer: for a rule of scores.
        progress: of reading captions, and of looking at images.

    Raises:
        ValueError: if no pair is left.
    """
    captions = tuple(source.captions_of(row) for row in progress(range(len(source)), "captions"))
    everything = Candidates(rows=np.arange(len(source)), captions=captions)
    left = everything.narrow(captions)
    steps = [Step(rule="damaged captions", removed=len(everything) - len(left), left=len(left))]
    for rule in rules:
        if rule.needs_images and left.looks is None:
            step, left = _looked_at(source, left, scorer, progress)
            steps.append(step)
        before, found = len(left), rule.apply(left)
        left = found.candidates
        steps.append(
            Step(
                rule=rule.name,
                options=rule.options,
                removed=before - len(left),
                left=len(left),
                alike=found.alike,
                is_leakage=rule.is_leakage,
            )
        )
    if not len(left):
        said = ", ".join(f"{step.rule} {step.removed}" for step in steps if step.removed)
        raise ValueError(f"no pair of {source.name} is left, these were removed: {said}")
    return Curated(candidates=left, steps=tuple(steps))


def _looked_at(
    source: PairSource, left: Candidates, scorer: Scorer | None, progress: Progress
) -> tuple[Step, Candidates]:
    looks, is_good, reasons = look_at(
        source, left.rows, scorer=scorer, captions=left.captions, progress=progress
    )
    seen = replace(left, looks=looks).keep(is_good)
    step = Step(
        rule="damaged images",
        options={"reasons": dict(reasons)} if reasons else {},
        removed=len(left) - len(seen),
        left=len(seen),
    )
    return step, seen

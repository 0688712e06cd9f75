"""A measured case: both sides in turns, medians, and their ratio."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import torch

from orderer.packed import multiplies_bf16
from recipes.engine.bf16 import Precision

DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32}
"""Of those precisions that this processor multiplies in, the fastest last."""
if multiplies_bf16():
    DTYPES["bf16"] = torch.bfloat16
FASTEST = next(reversed(DTYPES))
Measure = Callable[[], float]
"""Does the work once and returns its figure."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Figures of both sides, one of each for every run."""

    name: str
    unit: str
    ours: tuple[float, ...]
    reference: tuple[float, ...]
    is_rate: bool
    """True where more is better; the ratio says how much better ours is."""
    errors: Mapping[str, float] = field(default_factory=dict)
    """How far each side's outcome lies from the exact one."""

    @property
    def ratio(self) -> float:
        """Median over the runs of how many times better ours is."""
        pairs = zip(self.ours, self.reference, strict=True)
        return median(a / b if self.is_rate else b / a for a, b in pairs)

    def as_json(self) -> dict[str, float | int | str]:
        return {
            "ours": median(self.ours),
            "reference": median(self.reference),
            "ratio": self.ratio,
            "runs": len(self.ours),
            "unit": self.unit,
            **self.errors,
        }

    def __str__(self) -> str:
        figures = self.as_json()
        errors = "".join(f", {name} {error:.1e}" for name, error in self.errors.items())
        return (
            f"{self.name}: ours {figures['ours']:,.4g}, reference {figures['reference']:,.4g} "
            f"{self.unit}, ratio {self.ratio:.2f}, {figures['runs']} runs{errors}"
        )


def in_turns(
    name: str,
    unit: str,
    ours: Measure,
    reference: Measure,
    runs: int,
    *,
    is_rate: bool = True,
    errors: Mapping[str, float] | None = None,
) -> Case:
    """Measure both sides in turns, after one turn that is not counted."""
    ours(), reference()
    figures = [(ours(), reference()) for _ in range(runs)]
    a, b = zip(*figures, strict=True)
    return Case(name=name, unit=unit, ours=a, reference=b, is_rate=is_rate, errors=errors or {})


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time, which other programs do not lengthen much."""
    began = time.process_time()
    work()
    return time.process_time() - began


def clock_seconds(work: Callable[[], object]) -> float:
    """What somebody waits for: a disk, too."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began

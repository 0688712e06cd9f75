"""Does the measure of orders know a good one? Sequences whose answer is known, measured as orders.

    python -m recipes.order_controls

    stationary  one rule at every position: EQ near 1
    turned      the same, each position turned in a way of its own: low
    flipped     the same, with the signs of some positions changed: low
    exchanged   the same, tokens exchanged between sequences: nothing is gained, so there is no EQ
    letters     bytes of a text, each a fixed random vector: near the top

EQ is the mean of three: how evenly nats or errors are gained over positions, how far the gradients
of positions agree, and how much of what is learned at some positions serves at others; see
`ar.evaluation.equivariance`. Prints a table and writes OUT/controls.json. Some minutes on a core.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ar.evaluation import Schooling, Sequences, measure_order, small_model
from ar.evaluation.controls import exchanged, flipped, letters, stationary, turned
from recipes.engine.cli import run as start
from recipes.engine.page import Table, markdown_table
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings

Process = Callable[[Float[Tensor, "N K D"], int], Float[Tensor, "N K D"]]
PROCESSES: Mapping[str, Process] = {
    "stationary": lambda x, seed: x,
    "turned": lambda x, seed: turned(x),
    "flipped": lambda x, seed: flipped(x),
    "exchanged": exchanged,
}
"""What each control makes of a stationary process, given a seed."""
LETTERS = "letters"
LICENSE = Path(__file__).parents[1] / "LICENSE"
TRAIN_SHARE = 0.8
"""Of the text; test pieces come from the rest."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Which controls are measured, and with how much."""

    out: Path = Path("runs/controls")
    controls: tuple[str, ...] = (*PROCESSES, LETTERS)
    text: Path = LICENSE
    """Any file: its bytes are read as a text."""
    tokens: int = 16
    channels: int = 4
    """Of a token; a letter has twice as many."""
    train_count: int = 4096
    test_count: int = 1024
    seed: int = 0
    schooling: Schooling = field(default_factory=Schooling)
    """Of the small models."""

    def __post_init__(self) -> None:
        for control in self.controls:
            if control not in (*PROCESSES, LETTERS):
                known = ", ".join((*PROCESSES, LETTERS))
                raise ValueError(f"controls must be among {known}, got {control!r}")
        if not self.controls:
            raise ValueError("controls must hold at least one, got none")


def main(controls: Controls) -> None:
    """Measure every control, print, write."""
    found = {control: measured(controls, control) for control in controls.controls}
    print(markdown_table(table(found)))
    about = {"config": plain_settings(controls), **provenance()}
    controls.out.mkdir(parents=True, exist_ok=True)
    write_result(controls.out / "controls.json", "controls", {"results": found, **about})


def measured(controls: Controls, control: str) -> dict[str, Any]:
    """The measures of one control."""
    train, test = sequences(controls, control)
    channels = train.tokens.shape[2]
    return measure_order(
        lambda: small_model(controls.tokens, channels), train, test, schooling=controls.schooling
    )


def sequences(controls: Controls, control: str) -> tuple[Sequences, Sequences]:
    """What is learned, and what is asked."""
    first, second = 2 * controls.seed + 1, 2 * controls.seed + 2
    train, test = controls.train_count, controls.test_count
    if control == LETTERS:
        text, size = controls.text.read_bytes(), (controls.tokens, 2 * controls.channels)
        cut = round(TRAIN_SHARE * len(text))
        return (
            Sequences(tokens=letters(text[:cut], train, *size, first)),
            Sequences(tokens=letters(text[cut:], test, *size, second)),
        )
    size, process = (controls.tokens, controls.channels), PROCESSES[control]
    return (
        Sequences(tokens=process(stationary(train, *size, first), first)),
        Sequences(tokens=process(stationary(test, *size, second), second)),
    )


def table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row for each control."""
    rows = []
    for control, measures in found.items():
        each = measures["equivariance"]
        gain, pull, moved = each["gain"], each["conflict"], each["transfer"]
        figures = (
            each["eq"],
            gain["mean"],
            gain["gini"],
            pull["mean"],
            pull["below_zero"],
            moved["mean"],
            moved["without_positions"],
            measures["positions"]["accuracy"],
        )
        rows.append((control, *(None if x is None else f"{x:.3f}" for x in figures)))
    return Table(
        columns=(
            "control",
            "EQ",
            "gain",
            "Gini of gain",
            "cosine",
            "cosines below 0",
            "transfer",
            "lost without positions",
            "position told",
        ),
        rows=rows,
    )


if __name__ == "__main__":
    start(main, Controls)

"""Does the measure of orders know a good one? Sequences whose answer is known, measured as orders.

    python -m recipes.order_controls

    stationary  one rule at every position: EQ near 1
    turned      the same, each position turned in a way of its own: low
    flipped     the same, with the signs of some positions changed: low
    exchanged   the same, tokens exchanged between sequences: nothing is gained, so there is no EQ
    letters     bytes of a text, each a fixed random vector: near the top

EQ is the mean of three: how evenly nats or errors are gained over positions, how far the gradients
of positions agree, and how much of what is learned at some positions serves at others; see
`ar.evaluation.equivariance`. Prints a table with 95% intervals over seeds and writes
OUT/controls.json. Some minutes of a core for each seed.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data import topics
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ar.evaluation import Schooling, Sequences, measure_order, small_model
from ar.evaluation.controls import exchanged, flipped, letters, stationary, turned
from orderer.weights import digest_of
from recipes.engine.cli import run as start
from recipes.engine.page import NOTHING, Table, markdown_table
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import at_least, plain_settings
from recipes.intervals import cell, interval
from recipes.order_figures import figures_of_order

Process = Callable[[Float[Tensor, "N K D"], int], Float[Tensor, "N K D"]]
PROCESSES: Mapping[str, Process] = {
    "stationary": lambda x, seed: x,
    "turned": lambda x, seed: turned(x),
    "flipped": lambda x, seed: flipped(x),
    "exchanged": exchanged,
}
"""What each control makes of a stationary process, given a seed."""
LETTERS = "letters"
TEXT = Path(topics.__file__)
"""Of Python's own documentation: 750 kB of English; with 11 kB, a licence, EQ is .71, not .84."""
TRAIN_SHARE = 0.8
"""Of the text; test pieces come from the rest."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Which controls are measured, and with how much."""

    out: Path = Path("runs/controls")
    controls: tuple[str, ...] = (*PROCESSES, LETTERS)
    text: Path = TEXT
    """Any file: its bytes are read as a text."""
    tokens: int = 16
    channels: int = 4
    """Of a token; a letter has twice as many."""
    train_count: int = 4096
    test_count: int = 1024
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the sequences that are drawn; rules, turns and letters are the same with each."""
    schooling: Schooling = field(default_factory=Schooling)
    """Of the small models."""

    def __post_init__(self) -> None:
        for control in self.controls:
            if control not in (*PROCESSES, LETTERS):
                known = ", ".join((*PROCESSES, LETTERS))
                raise ValueError(f"controls must be among {known}, got {control!r}")
        if not self.controls:
            raise ValueError("controls must hold at least one, got none")
        if not self.seeds:
            raise ValueError("seeds must hold at least one, got none")
        at_least(1, tokens=self.tokens, channels=self.channels)
        at_least(1, train_count=self.train_count, test_count=self.test_count)


def main(controls: Controls) -> None:
    """Measure every control with every seed, print, write."""
    found = {}
    for control in controls.controls:
        of_seeds = [figures_of_order(measured(controls, control, seed)) for seed in controls.seeds]
        found[control] = {
            name: interval([each[name] for each in of_seeds])
            for name in of_seeds[0]
            if all(name in each for each in of_seeds)
        }
        print(f"{control}: EQ {cell(found[control].get('EQ')) or NOTHING}", flush=True)
    print(markdown_table(table(found)))
    text = {"name": controls.text.name, "sha256": digest_of([controls.text])}
    config = {**plain_settings(controls), "text": text}  # no path of this machine
    about = {"config": config, "seeds": list(controls.seeds), **provenance()}
    controls.out.mkdir(parents=True, exist_ok=True)
    write_result(controls.out / "controls.json", "controls", {"results": found, **about})


def measured(controls: Controls, control: str, seed: int) -> dict[str, Any]:
    """The measures of one control."""
    train, test = sequences(controls, control, seed)
    channels = train.tokens.shape[2]
    return measure_order(
        lambda: small_model(controls.tokens, channels), train, test, schooling=controls.schooling
    )


def sequences(controls: Controls, control: str, seed: int) -> tuple[Sequences, Sequences]:
    """What is learned, and what is asked."""
    first, second = 2 * seed + 1, 2 * seed + 2
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
    names = list(dict.fromkeys(name for of_one in found.values() for name in of_one))
    rows = [(control, *(cell(each.get(name)) for name in names)) for control, each in found.items()]
    return Table(columns=("control", *names), rows=rows)


if __name__ == "__main__":
    start(main, Controls)

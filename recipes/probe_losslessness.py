r"""What do tokens hold, and what is lost if they are codes? Random strings, read back.

    python -m recipes.probe_losslessness --config recipes/configs/losslessness/strings.yaml

Trains orderers of several lengths K to rebuild images of 4 to 8 random letters and digits, whose
information is known. A small network then learns, for as many steps each time, to name the
characters from the frozen tokens; from the same tokens as codes, found by residual k-means after
the training (1, 2 or 4 levels of V codes a token); and, as its ceiling, from patches of pixels.
Shown beside is what no reader of so many bits can exceed.

Writes OUT/losslessness.json, OUT/losslessness.html and OUT/pictures; OUT/tokensK-SEED holds each
run. `--processes` runs go side by side; `--resume` keeps what is done, so that seeds can be added.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orderer import complete_settings
from recipes.comparison import Compared, write_comparison
from recipes.engine.cli import run as start
from recipes.engine.page import markdown_table
from recipes.engine.results import write_json
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment
from recipes.losslessness import gather, table, write_losslessness_page
from recipes.reading import pixels_read
from recipes.variants import train_and_measure, variant

TASKS = ("reconstruction", "strings")


@dataclass(frozen=True, kw_only=True)
class Losslessness(Compared):
    """An experiment on strings, run with several numbers of tokens and seeds."""

    out: Path = Path("runs/losslessness")
    tokens: tuple[int, ...] = (2, 4, 8, 16)
    """Lengths K of the sequences; `orderer.token_dim` is their D."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data.source != ("strings",):
            raise ValueError(
                f"data.source must be strings, which are read, got {', '.join(self.data.source)}"
            )
        if not self.tokens:
            raise ValueError("tokens must hold at least one number, got none")
        if "tokens" in self.orderer:
            raise ValueError(
                f"orderer.tokens is what the runs differ in, got {self.orderer['tokens']!r}"
            )
        for length in self.tokens:
            complete_settings({**self.orderer, "tokens": length})


def main(probe: Losslessness) -> None:
    """Train every length with every seed, read, gather, write."""
    runs = {
        (length, seed): probe.out / f"tokens{length}-{seed}"
        for seed in probe.seeds
        for length in probe.tokens
    }
    experiments = [of_length(probe, length, seed, out) for (length, seed), out in runs.items()]
    train_and_measure(experiments, TASKS, probe.processes, probe.resume)
    results = gather(runs, {seed: ceiling(probe, seed) for seed in probe.seeds})
    write_comparison(probe.out / "losslessness.json", probe, runs.values(), results)
    write_losslessness_page(probe.out, results, runs)
    print(f"\n{markdown_table(table(results))}\n\npage: {probe.out / 'losslessness.html'}")


def of_length(probe: Losslessness, length: int, seed: int, out: Path) -> Experiment:
    """The experiment of one length and seed."""
    return variant(probe, out, seed, orderer={**probe.orderer, "tokens": length})


def ceiling(probe: Losslessness, seed: int) -> dict[str, Any]:
    """What the reader makes of pixels, read anew unless that is done with the same settings."""
    path = probe.out / f"pixels-{seed}.json"
    experiment = variant(probe, probe.out, seed)
    config = plain_settings(experiment)
    if probe.resume and path.is_file():
        done = json.loads(path.read_text())
        if done["config"] == config:
            return done["results"]
    found = pixels_read(experiment)
    write_json(path, {"results": found, "config": config})
    return found


if __name__ == "__main__":
    start(main, Losslessness)

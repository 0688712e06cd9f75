r"""Is it the text at every prefix? Four ways to train an orderer, alike in all else, over seeds.

    python -m recipes.ablate_orderer --config recipes/configs/ablation/scenes.yaml
    python -m recipes.ablate_orderer --config recipes/configs/ablation/emoji.yaml \
        --data.source='[FOLDER, FOLDER]'

    ours        captions contrasted with every prefix, images rebuilt from prefixes
    no_text     images rebuilt from prefixes (nested dropout), no captions
    last_only   captions contrasted with all tokens only, images rebuilt from prefixes
    unordered   queries that all see each other, captions and images from all tokens only

Trains each with each seed on the same pairs, in the same order and for as many steps. Measures what
its own readout and a fresh one of equal training find at each prefix, and how well its decoder
rebuilds. Writes OUT/ablation.json, OUT/ablation.html and OUT/pictures; OUT/ARM-SEED holds each run.
`--processes` runs go side by side, each on its share of the cores; `--resume` keeps what is done.
On 2 CPU cores the scenes take half an hour.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orderer.objectives import TEXT_TERMS
from recipes.ablation import gather, tables, write_ablation_page
from recipes.comparison import Compared, check_arms, runs_of, tell, write_comparison
from recipes.engine.cli import run as start
from recipes.experiment import Experiment
from recipes.variants import train_and_measure, variant

ARMS: Mapping[str, Mapping[str, Any]] = {
    "ours": {},
    "no_text": {"objectives": dict.fromkeys(TEXT_TERMS, 0.0)},
    "last_only": {"objectives": {"aligned": "full"}},
    "unordered": {
        "objectives": {"aligned": "full", "full_share": 1.0},
        "orderer": {"causal": False, "readout": "pooled"},
    },
}
"""What each arm changes of the experiment."""
TASKS = ("retrieval", "reconstruction", "probe")


@dataclass(frozen=True, kw_only=True)
class Ablation(Compared):
    """An experiment, run in several ways."""

    out: Path = Path("runs/ablation")
    arms: tuple[str, ...] = tuple(ARMS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arms(self.arms, ARMS)


def main(ablation: Ablation) -> None:
    """Run every arm with every seed, gather, write."""
    runs = runs_of(ablation.out, ablation.arms, ablation.seeds)
    experiments = [of_arm(ablation, arm, seed, out) for (arm, seed), out in runs.items()]
    train_and_measure(experiments, TASKS, ablation.processes, ablation.resume)
    results = gather(runs)
    write_comparison(ablation.out / "ablation.json", ablation, runs.values(), results)
    write_ablation_page(ablation.out, results)
    tell(tables(results), ablation.out / "ablation.html")


def of_arm(ablation: Ablation, arm: str, seed: int, out: Path) -> Experiment:
    """The experiment of one arm and seed."""
    training, changes = ablation.train_orderer, ARMS[arm]
    objectives = replace(training.objectives, **changes.get("objectives", {}))
    return variant(
        ablation,
        out,
        seed,
        orderer={**ablation.orderer, **changes.get("orderer", {})},
        train_orderer=replace(training, objectives=objectives),
    )


if __name__ == "__main__":
    start(main, Ablation)

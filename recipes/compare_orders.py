r"""Which order is best? AR models on the tokens of many orders, at equal total operations.

    python -m recipes.compare_orders --config recipes/configs/orders/cifar10.yaml \
        --data.source='[CIFAR10]'
    python -m recipes.compare_orders --config recipes/configs/orders/flickr8k.yaml \
        --data.source='[FLICKR8K]'

    raster, spiral, z, hilbert, centre_out   patches along a path
    raster_whole  the same as raster, all channels of its AR model scaled as one: what it costs in
                  noise that is the same for all
    shuffled      patches in one random order
    random        patches in a new random order for each image
    scales        averages of the whole, then of what they leave, at each finer scale
    depth         the larger half of each patch, then what it leaves
    principal     components of the whole image, those of most variance first
    noise         the whole image in falling noise
    learned       our orderer: rebuilt and aligned with captions at every prefix
    no_text       the same without captions (nested dropout)
    unordered     the same with queries that all see each other, and no prefixes

The fixed orders are made of principal components, those of patches but for `principal`, and have as
many channels as the learned tokens. All arms have the same trunk, head, start, order of the data
and total of operations: what the orderer's training and the encoding cost, an arm without one
spends on more steps of its AR model (fitting components is not counted: some 2% for `principal`).
With each seed every arm is trained and measured: nats at the error that all reach, Frechet and
kernel distances, whether captions are followed, without guidance and with every pair of
`evaluation.guidance_scales` and `context_scales`, what the trunk understands, and what the order
itself is like (`recipes.order_quality`).

Writes OUT/orders.json, OUT/orders.html and OUT/ARM-SEED of each run; `--processes` runs go side by
side; `--resume` keeps what is done. For four times the budget give four times the steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from orderer.objectives import TEXT_TERMS
from orderer.sequences.config import Order
from recipes.comparison import (
    Compared,
    check_arms,
    check_measured,
    runs_of,
    tell,
    write_comparison,
)
from recipes.components import check_enough_cells
from recipes.engine.cli import run as start
from recipes.evaluation_settings import Task
from recipes.experiment import Experiment
from recipes.order_costs import Costs, costs_of, steps_within
from recipes.orders_gallery import draw_paths, draw_together
from recipes.orders_page import write_orders_page
from recipes.orders_report import gather, tables
from recipes.variants import job_of_pair, run_all, variant

LEARNED = "learned"
FIXED = get_args(Order)
ARMS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    **{name: {"order": {"order": name}} for name in FIXED},
    "raster_whole": {"order": {"order": "raster"}, "ar": {"scaling": "whole"}},
    "random": {"order": {"order": "raster"}, "ar": {"order": "random"}},
    LEARNED: {},
    "no_text": {"objectives": dict.fromkeys(TEXT_TERMS, 0.0)},
    "unordered": {
        "objectives": {"aligned": "full", "full_share": 1.0},
        "orderer": {"causal": False, "readout": "pooled"},
    },
}
"""What each arm changes of the experiment; those with an `order` have no stage 1."""
TASKS: tuple[Task, ...] = (
    "reconstruction",
    "generation",
    "fidelity",
    "likelihood",
    "rate",
    "trunk",
    "order",
)


@dataclass(frozen=True, kw_only=True)
class Laboratory(Compared):
    """An experiment whose images become sequences in several ways."""

    out: Path = Path("runs/orders")
    arms: tuple[str, ...] = tuple(ARMS)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arms(self.arms, ARMS)
        if self.order or "order" in self.ar:
            raise ValueError("order and ar.order are what the arms differ in, and cannot be set")
        if self.evaluation.context_scales and not self.ar.get("context_drop"):
            raise ValueError(
                "guidance by the context needs ar.context_drop above 0, got "
                f"evaluation.context_scales {', '.join(map(str, self.evaluation.context_scales))}"
            )


def main(laboratory: Laboratory) -> None:
    """Share the operations out, run every arm with every seed, gather, write."""
    check(laboratory)
    costs = {
        arm: costs_of(of_arm(laboratory, arm, 1, laboratory.seed, laboratory.out))
        for arm in dict.fromkeys((LEARNED, *laboratory.arms))
    }
    total = costs[LEARNED].total(laboratory.train_ar.steps)
    steps = {arm: steps_within(total, costs[arm], arm) for arm in laboratory.arms}
    for arm, number in steps.items():
        print(f"{arm}: {number:,} steps of {costs[arm].step / 1e9:.2f} GFLOP", flush=True)
    runs = runs_of(laboratory.out, laboratory.arms, laboratory.seeds)
    experiments = {
        (arm, seed): of_arm(laboratory, arm, steps[arm], seed, out)
        for (arm, seed), out in runs.items()
    }
    jobs = [job_of_pair(each, TASKS, laboratory.resume) for each in experiments.values()]
    run_all(jobs, laboratory.processes)
    compute = {arm: described(costs[arm], steps[arm]) for arm in laboratory.arms}
    results = gather(runs, compute)
    write_comparison(laboratory.out / "orders.json", laboratory, runs.values(), results)
    drawn = laboratory.out / "pictures"
    draw_paths(drawn / "paths.png")
    first = {arm: experiments[arm, laboratory.seeds[0]] for arm in laboratory.arms}
    draw_together(first, results["arms"], drawn / "drawn.png")
    write_orders_page(laboratory.out, results, runs)
    tell(tables(results), laboratory.out / "orders.html")


def check(laboratory: Laboratory) -> None:
    """Refuse now what evaluation would refuse after the trainings."""
    check_measured(laboratory, TASKS)
    config = laboratory.orderer_config()
    for arm in laboratory.arms:
        experiment = of_arm(laboratory, arm, 1, 0, laboratory.out)
        sequence = experiment.sequence_config() if experiment.order else config
        images, channels = laboratory.evaluation.probe_scenes, sequence.token_dim
        if images <= channels:
            raise ValueError(
                f"evaluation.probe_scenes must be more than the {channels} channels that a token "
                f"of the order {arm} has, got {images}"
            )
        if experiment.order:
            check_enough_cells(experiment)


def of_arm(laboratory: Laboratory, arm: str, steps: int, seed: int, out: Path) -> Experiment:
    """The experiment of one arm and seed."""
    changes, training = ARMS[arm], laboratory.train_orderer
    objectives = replace(training.objectives, **changes.get("objectives", {}))
    return variant(
        laboratory,
        out,
        seed,
        order=dict(changes.get("order", {})),
        orderer={**laboratory.orderer, **changes.get("orderer", {})},
        ar={**laboratory.ar, **changes.get("ar", {})},
        train_orderer=replace(training, objectives=objectives),
        train_ar=replace(laboratory.train_ar, steps=steps),
        sampling=replace(laboratory.sampling, guidance_scale=1.0, context_scale=1.0),
    )


def described(costs: Costs, steps: int) -> dict[str, int]:
    """What an arm does, and what it costs."""
    return {
        "steps": steps,
        "step": costs.step,
        "stage_1": costs.stage_1,
        "encoding": costs.encoding,
        "total": costs.total(steps),
    }


if __name__ == "__main__":
    start(main, Laboratory)

r"""Right against wrong: AR models with different heads on the tokens of one orderer, at equal cost.

    python -m recipes.compare_heads --config recipes/configs/heads/cifar10.yaml \
        --data.source='[CIFAR10]'
    python -m recipes.compare_heads --config recipes/configs/heads/emoji.yaml \
        --data.source='[NOTO, TWEMOJI]' --tokens_from=FOLDER

    flow          flow matching, modulated by the timestep alone: the default
    flow_uniform  the same, trained at all timesteps alike: near the data, too, where the default
                  hardly looks and likelihood is decided
    flow_weighted trained at all timesteps alike, each weighed as often as the default draws it: the
                  same objective, by weight instead of by number
    flow_token    the default, modulated by timestep and state (MAR's form)
    diffusion     MAR's: predicts the noise of a cosine schedule, modulated by both
    mixture       a Gaussian mixture (GIVT's)
    energy        noise to token in one step, by the energy score (EAR's)
    categorical   one of a few codes
    regression    squared error (Emu2's): every token is a Gaussian of one shape
    in_trunk      a flow whose noisy tokens run through the trunk itself

Trains an orderer and writes its tokens, or takes them from FOLDER, a finished run. Each arm then
trains with each seed for as many steps as the operations of the flow's training pay for, and is
measured: log-likelihood of test tokens, Fréchet and kernel distance to real test images in a small
network trained on real ones, and whether captions are followed, without guidance and with that of
`evaluation.guidance_scales`. Writes OUT/heads.json, OUT/heads.html and OUT/pictures; OUT/ARM-SEED
holds each run. `--processes` arms run side by side; `--resume` keeps what is done.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ar import ARModel
from data import TokenBatches, TokenStore
from data.tokens import STORE
from orderer import Orderer, OrdererProcessor
from recipes.comparison import (
    Compared,
    check_arms,
    check_measured,
    runs_of,
    tell,
    write_comparison,
)
from recipes.compute import equal_steps
from recipes.engine.cli import run as start
from recipes.engine.processes import seed_everything
from recipes.evaluation_settings import Task
from recipes.experiment import Experiment
from recipes.heads_report import gather, tables, write_heads_page
from recipes.stage_2 import costs_of_step
from recipes.training_record import RECORD
from recipes.variants import job_of, run_all, train_and_measure, variant

DEFAULT = "flow"
ARMS: Mapping[str, Mapping[str, Any]] = {
    "flow": {"head": "flow"},
    "flow_uniform": {"head": "flow", "timesteps": "uniform"},
    "flow_weighted": {"head": "flow", "timesteps": "uniform", "weighting": "density"},
    "flow_token": {"head": "flow", "modulation": "token"},
    "diffusion": {"head": "diffusion", "prediction": "noise", "modulation": "token"},
    "mixture": {"head": "mixture"},
    "energy": {"head": "energy"},
    "categorical": {"head": "categorical"},
    "regression": {"head": "regression"},
    "in_trunk": {"head": "in_trunk"},
}
"""What each arm changes of the AR model's settings."""
SHARED = ("orderer", "tokens", "held")
"""What all arms learn from: a link to it lies in the folder of each."""
TASKS: tuple[Task, ...] = ("generation", "fidelity", "likelihood")


@dataclass(frozen=True, kw_only=True)
class Comparison(Compared):
    """An experiment whose second stage runs with several heads."""

    out: Path = Path("runs/heads")
    arms: tuple[str, ...] = tuple(ARMS)
    seeds: tuple[int, ...] = (0,)
    tokens_from: Path | None = None
    """A folder that holds `orderer`, `tokens` and `held`; null trains and writes them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_arms(self.arms, ARMS)
        if self.train_ar.caption_weight:
            raise ValueError(
                "arms are compared at equal cost, and that of writing captions is not counted: "
                f"train_ar.caption_weight must be 0, got {self.train_ar.caption_weight}"
            )
        for name in ("head", "prediction", "modulation", "timesteps", "weighting"):
            if name in self.ar:
                raise ValueError(f"ar.{name} is what the arms differ in, got {self.ar[name]!r}")


def main(comparison: Comparison) -> None:
    """Make tokens, share the operations out, run every arm with every seed, gather, write."""
    check_measured(comparison, TASKS)
    tokens = comparison.tokens_from or comparison.out / "shared"
    if comparison.tokens_from is None:
        write_shared(comparison, tokens)
    costs = count(comparison, tokens)
    steps = equal_steps(
        {arm: cost["step"] for arm, cost in costs.items()}, comparison.train_ar.steps, DEFAULT
    )
    runs = runs_of(comparison.out, comparison.arms, comparison.seeds)
    for (arm, _), out in runs.items():
        link_shared(tokens, out)
        print(f"{out.name}: {steps[arm]:,} steps of {costs[arm]['step'] / 1e9:.3f} GFLOP")
    experiments = [
        of_arm(comparison, arm, steps[arm], seed, out) for (arm, seed), out in runs.items()
    ]
    train_and_measure(
        experiments, TASKS, comparison.processes, comparison.resume, training="train_ar"
    )
    compute = {arm: {"steps": steps[arm], "flops": costs[arm]} for arm in comparison.arms}
    results = gather(runs, compute)
    write_comparison(comparison.out / "heads.json", comparison, runs.values(), results)
    write_heads_page(comparison.out, results, runs)
    tell(tables(results), comparison.out / "heads.html")


def write_shared(comparison: Comparison, out: Path) -> None:
    """Train the one orderer and write its tokens, where that is not done."""
    recipes = [
        (("train_orderer",), out / "orderer" / RECORD),
        (("write_tokens",), out / "held" / STORE),
    ]
    experiment = variant(comparison, out, comparison.seed)
    run_all([job_of(experiment, recipes, comparison.resume)], at_once=1)


def link_shared(tokens: Path, out: Path) -> None:
    """Show a run the orderer and the tokens that all share."""
    out.mkdir(parents=True, exist_ok=True)
    for name in SHARED:
        if not (tokens / name).is_dir():
            raise FileNotFoundError(f"{tokens / name} is not a folder")
        link = out / name
        if link.is_symlink():
            link.unlink()
        elif link.is_dir():
            shutil.rmtree(link)
        link.symlink_to((tokens / name).resolve(), target_is_directory=True)


def of_arm(comparison: Comparison, arm: str, steps: int, seed: int, out: Path) -> Experiment:
    """The experiment of one arm and seed."""
    return variant(
        comparison,
        out,
        seed,
        ar={**comparison.ar, **ARMS[arm]},
        train_ar=replace(comparison.train_ar, steps=steps),
        sampling=replace(comparison.sampling, guidance_scale=1.0, context_scale=1.0),
    )


def count(comparison: Comparison, folder: Path) -> dict[str, dict[str, int]]:
    """The operations of a training step of every arm and of the default, on one same batch.

    What is done once for all arms is left out: the orderer's training, and writing its tokens.
    """
    orderer = Orderer.from_pretrained(folder / "orderer").eval()
    processor = OrdererProcessor.from_pretrained(folder / "orderer")
    store = TokenStore.open(folder / "tokens")
    settings = comparison.train_ar
    draw = comparison.data.draw(settings.batch_size, comparison.seed)
    batch = TokenBatches(store, **vars(draw)).at(0)

    costs = {}
    for arm in dict.fromkeys((DEFAULT, *comparison.arms)):
        experiment = of_arm(comparison, arm, 1, comparison.seed, comparison.out)
        seed_everything(comparison.seed, rank=0)
        config = experiment.ar_config(orderer.config, store.orderer_hash, store.captions)
        model = ARModel(config).train()
        costs[arm] = costs_of_step(experiment, model, batch, orderer, processor)
    return costs


if __name__ == "__main__":
    start(main, Comparison)

"""Do tokens hold first what captions say first? Two caption policies on the same scenes.

    python -m recipes.prove_order --config recipes/configs/ablation/policies.yaml

Trains orderers on scenes whose captions say the shapes first and the ground last (`scenes`), and on
the same scenes whose captions say the ground first and the shapes last (`scenes_ground_first`);
growing prefixes have growing captions. Then a linear probe reads every factor at every prefix: the
prefix at which a factor becomes readable should follow the caption in which it is named, and swap
with the policy. Writes OUT/order.json, OUT/order.png and OUT/POLICY-SEED of each run. `--processes`
runs go side by side; `--resume` keeps what is done. On 2 CPU cores it takes half an hour.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from data.scenes import NAMED_AT
from orderer.evaluation import rank_correlation
from recipes.comparison import Compared, runs_of, write_comparison
from recipes.engine import pictures
from recipes.engine.cli import run as start
from recipes.engine.page import Table, markdown_table
from recipes.experiment import Experiment
from recipes.variants import train_and_measure, variant

TASKS = ("retrieval", "reconstruction", "factors")


@dataclass(frozen=True, kw_only=True)
class Policies(Compared):
    """An experiment on scenes, run with each caption policy and several seeds."""

    out: Path = Path("runs/policies")


def main(policies: Policies) -> None:
    """Train with each policy and seed, compare, write."""
    runs = runs_of(policies.out, list(NAMED_AT), policies.seeds)
    experiments = [of_policy(policies, policy, seed, out) for (policy, seed), out in runs.items()]
    train_and_measure(experiments, TASKS, policies.processes, policies.resume)
    found = {policy: followed(policy, runs) for policy in NAMED_AT}
    write_comparison(policies.out / "order.json", policies, runs.values(), found)
    pictures.followed_order(
        {policy: each["readable_from"] for policy, each in found.items()},
        NAMED_AT,
        policies.out / "order.png",
    )
    for policy, each in found.items():
        print(f"\n{markdown_table(table(policy, each))}")
    print(f"\npicture: {policies.out / 'order.png'}")


def of_policy(policies: Policies, policy: str, seed: int, out: Path) -> Experiment:
    """The experiment of one policy and seed."""
    return variant(
        policies,
        out,
        seed,
        data=replace(policies.data, source=(policy,)),
        train_orderer=replace(policies.train_orderer, detail=True),
    )


def followed(policy: str, runs: Mapping[tuple[str, int], Path]) -> dict[str, Any]:
    """For each seed, from which prefix each factor is readable, and how that follows the policy."""
    named = NAMED_AT[policy]
    readable: dict[str, list[float]] = {factor: [] for factor in named}
    scores: dict[str, list[Any]] = {factor: [] for factor in named}
    correlations = []
    for (of, _), out in runs.items():
        if of != policy:
            continue
        measured = json.loads((out / "evaluation.json").read_text())["results"]["separate"]
        for factor in named:
            readable[factor].append(measured["factors"][factor]["readable_from"])
            scores[factor].append(measured["factors"][factor]["score"])
        late = [readable[factor][-1] for factor in named]
        correlations.append(
            rank_correlation(
                torch.tensor(list(named.values())).double(), torch.tensor(late).double()
            )
        )
    return {
        "named_at": named,
        "readable_from": readable,
        "scores": scores,
        "rank_correlation": correlations,
    }


def table(policy: str, found: Mapping[str, Any]) -> Table:
    """A row for each factor, a column for each seed."""
    number = len(found["rank_correlation"])
    rows = [
        (factor, found["named_at"][factor], *(f"{k:.1f}" for k in found["readable_from"][factor]))
        for factor in found["named_at"]
    ]
    last = ("rank correlation", None, *(f"{each:.2f}" for each in found["rank_correlation"]))
    return Table(
        columns=(policy, "named at", *(f"readable from, seed {seed}" for seed in range(number))),
        rows=[*rows, last],
    )


if __name__ == "__main__":
    start(main, Policies)

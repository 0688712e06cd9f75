"""Two caption policies: what is compared, and that an order which follows is seen to follow."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from data.scenes import NAMED_AT
from recipes.engine.page import markdown_table
from recipes.engine.pictures import followed_order
from recipes.prove_order import Policies, followed, of_policy, table


def written(out: Path, readable_from: dict[str, float]) -> Path:
    """What `evaluate` leaves of a run whose factors are readable from these prefixes on."""
    factors = {
        name: {"score": {"1": 0.1, "16": 0.9}, "readable_from": k}
        for name, k in readable_from.items()
    }
    out.mkdir(parents=True)
    results = {"results": {"separate": {"factors": factors}}}
    (out / "evaluation.json").write_text(json.dumps(results))
    return out


@pytest.mark.parametrize("policy", NAMED_AT)
def test_tokens_that_hold_factors_as_they_are_named_follow(policy: str, tmp_path: Path) -> None:
    as_named = {name: 2.0**place for name, place in NAMED_AT[policy].items()}
    turned = {name: 2.0**-place for name, place in NAMED_AT[policy].items()}
    runs = {
        (policy, 0): written(tmp_path / "0", as_named),
        (policy, 1): written(tmp_path / "1", turned),
    }
    found = followed(policy, runs)
    assert found["rank_correlation"] == pytest.approx([1.0, -1.0])
    assert "1.00" in markdown_table(table(policy, found)).splitlines()[-1]


def test_the_picture_has_a_panel_for_each_policy(tmp_path: Path) -> None:
    readable = {
        policy: {name: [1.0 * place, 2.0 * place] for name, place in named.items()}
        for policy, named in NAMED_AT.items()
    }
    followed_order(readable, NAMED_AT, tmp_path / "order.png")
    assert (tmp_path / "order.png").read_bytes().startswith(b"\x89PNG")


def test_the_runs_differ_in_nothing_but_policy_and_seed(tmp_path: Path) -> None:
    runs = [of_policy(Policies(), policy, 3, tmp_path) for policy in NAMED_AT]
    assert [run.data.source for run in runs] == [(policy,) for policy in NAMED_AT]
    assert all(run.train_orderer.detail and run.seed == 3 for run in runs)
    alike = [replace(run, data=replace(run.data, source=("scenes",))) for run in runs]
    assert alike[0] == alike[1]


def test_no_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seeds must hold at least one, got none"):
        Policies(seeds=())

"""Stage 3: every route runs, what must not move does not, and a collapse stops itself."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ar import ARConfig, ARModel
from ar.joint import ROUTES, Limits, Route
from orderer import Orderer, OrdererProcessor, Said
from recipes import train_joint
from recipes.engine.anchor import Anchor
from recipes.engine.cli import StoppedItself
from recipes.experiment import Experiment
from recipes.joining import GRADIENT, Joint
from recipes.reaching import Reaching
from recipes.training_record import read_record
from recipes.training_settings import JointTraining

SAID = Said(
    texts=torch.zeros(1, 4, dtype=torch.long),
    numbers=torch.zeros(1, dtype=torch.long),
    at=torch.zeros(3, 3, dtype=torch.long),
)
"""Of three images; the route decode does not look."""


@pytest.fixture
def separate(trained: Experiment, tmp_path: Path) -> Experiment:
    """The tiny experiment after stages 1 and 2."""
    for name in ("orderer", "ar"):
        shutil.copytree(trained.out / name, tmp_path / name)
    return replace(trained, out=tmp_path)


def by(experiment: Experiment, **changes: object) -> Experiment:
    return replace(experiment, train_joint=replace(experiment.train_joint, **changes))


def joined(out: Path) -> tuple[Orderer, ARModel]:
    models = Orderer.from_pretrained(out / "orderer"), ARModel.from_pretrained(out / "ar")
    models[1].check_orderer(models[0].encoding_hash())
    return models


@pytest.mark.parametrize("route", [route for route in ROUTES if route != "align"])
def test_a_route_trains_two_models_that_belong_together(route: Route, separate: Experiment) -> None:
    train_joint.main(by(separate, route=route))
    before, after = joined(separate.out), joined(separate.out / "joint")
    is_same = before[0].encoding_hash() == after[0].encoding_hash()
    assert is_same == (route == "frozen")
    assert not torch.equal(before[1].trunk.embed.weight, after[1].trunk.embed.weight)
    lines = map(json.loads, (separate.out / "logs/joint.jsonl").read_text().splitlines())
    shares = [line["share"] for line in lines if "share" in line]
    asked = {"frozen": [], "apart": [False] * 3}.get(route, [True] * 3)
    assert [share > 0 for share in shares] == asked  # two steps of the orderer, and a look
    is_still = route in ("frozen", "rate")  # the noise of a rate must not shrink with the tokens
    assert torch.equal(before[1].std, after[1].std) == is_still


def test_a_training_that_breaks_a_limit_stops_and_hands_on_the_last_good_models(
    separate: Experiment,
) -> None:
    broken = by(separate, watch_every=3, limits=Limits(rank=2.0))
    with pytest.raises(StoppedItself, match=r"stopped itself at step 3: rank is .* of step 0$"):
        train_joint.main(broken)
    before, after = joined(separate.out), joined(separate.out / "joint")
    for one, other in zip(before, after, strict=True):
        assert all(
            torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True)
        )
    status = json.loads((separate.out / "logs/joint.status.json").read_text())
    assert status["status"] == "failed" and "rank is" in status["error"]
    assert (read_record(separate.out / "joint/orderer") or {})["joint"]["stopped"]


def test_the_watched_figures_are_logged_and_kept(trained: Experiment) -> None:
    lines = map(json.loads, (trained.out / "logs/joint.jsonl").read_text().splitlines())
    (last,) = [line for line in lines if "rank" in line]
    assert last["step"] == 3
    records = [read_record(trained.out / "joint" / name) or {} for name in ("orderer", "ar")]
    assert records[0]["joint"] == records[1]["joint"]
    assert [record.keys() & {"settings"} for record in records] == [{"settings"}] * 2
    kept = records[0]["joint"]["watched"]
    assert kept["before"].keys() == kept["after"].keys() == last.keys() - {"step", *GRADIENT}
    assert kept["before"]["rank"] > 1
    for drift in ("token_drift", "order_drift"):
        assert kept["before"][drift] == pytest.approx(0, abs=1e-6) and 0 <= last[drift] <= 2
    assert 0 < last["share"] <= 0.1 + 1e-6 and last["share"] <= last["asked"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"cap": -0.1}, r"cap must be at least 0, got -0\.1"),
        ({"weight": 0.0}, r"align does not reach the orderer with weight 0\.0 and cap 0\.1"),
        ({"cap": 0.0}, "align does not reach the orderer with weight 0.5 and cap 0.0"),
        ({"watched": 3}, "watched must be at least 4, got 3"),
        ({"orderer_every": 0}, "orderer_every must be at least 1, got 0"),
        ({"ema_decay": 1.0}, r"ema_decay must be at least 0 and below 1, got 1\.0"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        JointTraining(**changes)


def test_the_route_without_a_cap_does_not_ask_for_one() -> None:
    assert JointTraining(route="full", cap=0.0).cap == 0


@pytest.mark.parametrize(
    ("route", "loss"), [("align", "contrastive"), ("decode", "reconstruction")]
)
def test_a_route_whose_loss_is_switched_off_is_refused(
    route: Route, loss: str, tiny: Experiment, tiny_orderer: Orderer, tiny_ar: ARModel
) -> None:
    objectives = replace(tiny.train_orderer.objectives, **{loss: 0.0})
    experiment = replace(
        tiny,
        train_orderer=replace(tiny.train_orderer, objectives=objectives),
        train_joint=replace(tiny.train_joint, route=route),
    )
    processor = OrdererProcessor(image_size=16, context_length=8)
    with pytest.raises(ValueError, match=f"{route} needs .*objectives.{loss}, which is 0"):
        Joint.of(experiment, tiny_orderer, tiny_ar, processor)


def test_the_contrast_whose_bias_is_not_handed_on_is_refused(
    tiny: Experiment, tiny_orderer: Orderer, tiny_ar: ARModel
) -> None:
    objectives = replace(tiny.train_orderer.objectives, similarity="siglip")
    experiment = replace(tiny, train_orderer=replace(tiny.train_orderer, objectives=objectives))
    processor = OrdererProcessor(image_size=16, context_length=8)
    with pytest.raises(ValueError, match=r"contrast infonce only: .*, got .*similarity siglip"):
        Joint.of(experiment, tiny_orderer, tiny_ar, processor)
    still = replace(experiment, train_joint=replace(tiny.train_joint, route="frozen"))
    Joint.of(still, tiny_orderer, tiny_ar, processor)


@pytest.mark.parametrize("route", ["decode", "rate"])
def test_a_route_by_guesses_needs_a_head_that_guesses(route: Route, tiny_orderer: Orderer) -> None:
    model = ARModel(ARConfig(tokens=4, token_dim=6, head="regression"))
    with pytest.raises(ValueError, match=f"route {route} .* the head 'regression' makes none"):
        Reaching(route, tiny_orderer, model, noise=0.1)


@pytest.mark.parametrize("route", ["align", "shuffled"])
def test_an_alignment_between_tokens_needs_two(route: Route, tiny_orderer: Orderer) -> None:
    config = replace(tiny_orderer.config, tokens=1)
    model = ARModel(ARConfig(tokens=1, token_dim=6))
    with pytest.raises(ValueError, match=f"route {route} reads .* of 2 or more is needed, got 1"):
        Reaching(route, Orderer(config), model, noise=0.1)


def test_a_rate_reaches_all_tokens_and_leaves_the_model_alone(
    tiny_orderer: Orderer, tiny_ar: ARModel
) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    tokens = tiny_orderer.encode(images).detach()
    reaching = Reaching("rate", tiny_orderer, tiny_ar, noise=0.1)
    asked = (tiny_ar.unconditioned(3), SAID, images)
    learning = [p.requires_grad for p in tiny_ar.parameters()]
    assert reaching(tiny_orderer, tiny_ar, tokens, *asked) == {}  # nobody there to be reached
    (loss,) = reaching(tiny_orderer, tiny_ar, tokens.requires_grad_(), *asked).values()
    loss.backward()
    assert tokens.grad is not None and bool((tokens.grad.abs().sum(dim=(0, 2)) > 0).all())
    assert all(p.grad is None for p in tiny_ar.parameters())
    assert [p.requires_grad for p in tiny_ar.parameters()] == learning


def test_decoded_guesses_reach_what_is_looked_back_at_and_leave_the_decoder_alone(
    tiny_orderer: Orderer, tiny_ar: ARModel
) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    tokens = tiny_orderer.encode(images).detach().requires_grad_()
    reaching = Reaching("decode", tiny_orderer, tiny_ar, noise=0.1)
    condition = tiny_ar.unconditioned(3)
    (loss,) = reaching(tiny_orderer, tiny_ar, tokens, condition, SAID, images).values()
    loss.backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum(dim=(0, 2)).gt(0).tolist() == [True, True, True, False]
    assert all(p.grad is None for p in tiny_orderer.parameters())
    assert all(p.requires_grad for p in tiny_orderer.parameters())
    assert any(p.grad is not None for p in tiny_ar.head.parameters())


def test_an_orderer_that_was_trained_on_since_is_refused(separate: Experiment) -> None:
    orderer = Orderer.from_pretrained(separate.out / "orderer")
    with torch.no_grad():
        next(orderer.encoder.parameters()).add_(1)
    orderer.save_pretrained(separate.out / "orderer")
    with pytest.raises(ValueError, match="this AR model was trained on tokens of orderer"):
        train_joint.main(separate)


@pytest.mark.parametrize("name", ["orderer", "ar"])
def test_models_that_were_trained_anew_are_not_resumed_from_the_old_ones(
    name: str, separate: Experiment
) -> None:
    short = by(separate, route="frozen", steps=1)
    train_joint.main(short)
    kind = {"orderer": Orderer, "ar": ARModel}[name]
    model = kind.from_pretrained(separate.out / name)
    with torch.no_grad():  # of what no hash of an encoding sees
        last = model.decoder.embed.weight if name == "orderer" else model.trunk.embed.weight
        last.add_(1)
    model.save_pretrained(separate.out / name)
    with pytest.raises(ValueError, match=f"weights of {name} was .* and is"):
        train_joint.main(replace(short, resume=True))


@pytest.mark.parametrize(
    ("every", "steps"),
    [(1, [False, False, True, True, True]), (2, [False, False, True, False, True])],
)
def test_the_orderer_waits_and_then_takes_its_turns(every: int, steps: list[bool]) -> None:
    settings = JointTraining(rewarm=2, orderer_every=every)
    assert [settings.reaches(step) for step in range(5)] == steps
    assert not any(replace(settings, route="frozen").reaches(step) for step in range(5))


def test_an_anchor_draws_what_learns_back_to_its_start() -> None:
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    start = {name: x.detach().clone() for name, x in layer.named_parameters()}
    anchor = Anchor(layer.parameters())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 1
    anchor.pull(0.25)
    torch.testing.assert_close(layer.weight, start["weight"] + 0.75)
    torch.testing.assert_close(layer.bias, start["bias"] + 1)

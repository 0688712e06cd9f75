import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Muon, Optimizer

from orderer import Borrowed
from recipes.engine.checkpoint import load_latest, save_checkpoint
from recipes.engine.optim import (
    Schedule,
    clip_gradients,
    make_optimizers,
    optimizer_tensors,
    restore_optimizer,
)
from recipes.engine.processes import seed_everything
from recipes.engine.training import update
from recipes.training_settings import OptimSettings

RATES = {"muon_lr": 4e-3, "adamw_lr": 1.5e-3, "weight_decay": 0.1}


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(5, 6))
        self.table = nn.Embedding(4, 6)
        self.frozen = nn.Linear(6, 6)
        self.frozen.requires_grad_(False)
        self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
        self.head = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.queries.mean(0) + self.table.weight.mean(0)
        for block in self.blocks:
            x = F.dropout(block(x).tanh(), 0.1)
        return self.head(x)


def in_blocks(name: str, tensor: Tensor) -> bool:
    return name.startswith("blocks.")


def make(seed: int = 0) -> tuple[Toy, list[Optimizer], Schedule]:
    torch.manual_seed(seed)
    model = Toy()
    optimizers = make_optimizers(model, in_blocks, **RATES)
    return model, optimizers, Schedule(optimizers, 20, 3)


def train(model: Toy, optimizers: list[Optimizer], schedule: Schedule, steps: range) -> list[float]:
    losses = []
    for step in steps:
        seed_everything(0, 0, step)
        schedule.set(step)
        x = torch.randn(16, 6)
        loss = F.mse_loss(model(x), x.mean(1, keepdim=True))
        loss.backward()
        clip_gradients(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def names(model: nn.Module, parameters: list[Tensor]) -> set[str]:
    return {name for name, p in model.named_parameters() if any(p is q for q in parameters)}


def test_every_learning_parameter_has_one_optimizer():
    model, (muon, adamw), _ = make()
    assert isinstance(muon, Muon) and isinstance(adamw, AdamW)
    groups = [muon.param_groups[0], *adamw.param_groups]
    assert [(names(model, group["params"]), group["weight_decay"]) for group in groups] == [
        ({"blocks.0.weight", "blocks.1.weight"}, 0.1),
        ({"head.weight"}, 0.1),
        ({"blocks.0.bias", "blocks.1.bias", "head.bias", "queries", "table.weight"}, 0.0),
    ]


def test_without_block_matrices_there_is_adamw_alone():
    (only,) = make_optimizers(nn.Linear(2, 2), lambda name, tensor: False, **RATES)
    assert isinstance(only, AdamW)


def test_with_nothing_but_block_matrices_there_is_muon_alone():
    (only,) = make_optimizers(nn.Linear(2, 2, bias=False), lambda name, tensor: True, **RATES)
    assert isinstance(only, Muon)


def test_a_model_that_cannot_learn_is_refused():
    with pytest.raises(ValueError, match="Linear has no parameter that learns"):
        make_optimizers(nn.Linear(2, 2).requires_grad_(False), in_blocks, **RATES)


def test_fifty_steps_learn():
    torch.manual_seed(0)
    model = Toy()
    optimizers = make_optimizers(model, in_blocks, muon_lr=0.05, adamw_lr=0.03, weight_decay=0.02)
    losses = train(model, optimizers, Schedule(optimizers, 50, 3), range(50))
    assert sum(losses[-5:]) < 0.3 * sum(losses[:5])


def test_an_optimizer_comes_back_bit_for_bit():
    model, optimizers, schedule = make()
    train(model, optimizers, schedule, range(3))
    _, fresh, _ = make(seed=1)
    for old, new in zip(optimizers, fresh, strict=True):
        tensors, groups = optimizer_tensors(old)
        restore_optimizer(new, tensors, json.loads(json.dumps(groups)))
        found, found_groups = optimizer_tensors(new)
        assert found_groups == groups
        assert found.keys() == tensors.keys() and tensors
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_training_on_leaves_the_restored_tensors_alone():
    model, optimizers, schedule = make()
    train(model, optimizers, schedule, range(3))
    for optimizer in optimizers:
        live, groups = optimizer_tensors(optimizer)
        saved = {name: tensor.clone() for name, tensor in live.items()}
        restore_optimizer(optimizer, saved, groups)
        train(model, [optimizer], schedule, range(3, 4))
        assert all(torch.equal(saved[name], live[name]) for name in saved)


def test_a_schedule_made_after_restoring_has_the_same_rates():
    _, (old, _), schedule = make()
    schedule.set(1)
    restored, saved_rate = make()[1][0], old.param_groups[0]["lr"]
    restore_optimizer(restored, *optimizer_tensors(old))
    Schedule([restored], 20, 3).set(1)
    assert restored.param_groups[0]["lr"] == saved_rate < 4e-3


def test_an_optimizer_that_never_stepped_comes_back():
    _, (muon, _), _ = make()
    tensors, groups = optimizer_tensors(muon)
    assert tensors == {}
    restore_optimizer(muon, tensors, groups)


def test_the_state_of_another_model_is_refused():
    _, (muon, adamw), _ = make()
    with pytest.raises(ValueError, match="the saved AdamW has other parameters than this one"):
        restore_optimizer(adamw, *optimizer_tensors(muon))


def save(folder: Path, step: int, model: Toy, optimizers: list[Optimizer]) -> None:
    states = [optimizer_tensors(optimizer) for optimizer in optimizers]
    tensors = {"model": model.state_dict()}
    tensors |= {f"optimizer.{i}": tensors for i, (tensors, _) in enumerate(states)}
    save_checkpoint(folder, step, tensors, {"optimizers": [groups for _, groups in states]})


def load(folder: Path, model: Toy, optimizers: list[Optimizer]) -> int:
    saved = load_latest(folder)
    assert saved is not None
    model.load_state_dict(saved.tensors["model"])
    for i, optimizer in enumerate(optimizers):
        groups = saved.state["optimizers"][i]
        restore_optimizer(optimizer, saved.tensors[f"optimizer.{i}"], groups)
    return saved.step


@pytest.mark.parametrize("stops", [(1,), (2,), (19,), (4, 5, 12)])
def test_resuming_changes_nothing(stops, tmp_path):
    whole, *tools = make()
    expected = train(whole, *tools, range(20))
    model, optimizers, schedule = make()
    losses, start = [], 0
    for stop in (*stops, 20):
        losses += train(model, optimizers, schedule, range(start, stop))
        save(tmp_path, stop, model, optimizers)
        model, optimizers, schedule = make(seed=stop)
        start = load(tmp_path, model, optimizers)
    assert losses == expected
    for name, tensor in whole.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)


def schedule_of(**settings) -> Schedule:
    return Schedule([], **{"steps": 100, "warmup_steps": 10, **settings})


def test_the_rate_rises_in_equal_parts_to_its_peak():
    schedule = schedule_of()
    assert [schedule.factor(step) for step in range(11)] == pytest.approx(
        [(step + 1) / 11 for step in range(11)]
    )


def test_a_schedule_that_begins_later_is_still_and_then_the_same():
    late = schedule_of(steps=140, first=40)
    assert {late.factor(step) for step in range(40)} == {0}
    assert [late.factor(step + 40) for step in range(101)] == [
        schedule_of().factor(step) for step in range(101)
    ]


@pytest.mark.parametrize("step", [10, 33, 55, 99, 100])
def test_the_rate_falls_by_its_closed_form(step):
    done = (step - 10) / 90
    assert schedule_of().factor(step) == pytest.approx(math.cos(math.pi * done / 2) ** 2)


def test_cosine_equals_that_of_torch():
    parameter = nn.Parameter(torch.zeros(1))
    ours, theirs = (torch.optim.SGD([parameter], lr=0.3) for _ in range(2))
    schedule = Schedule([ours], 50, 0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 50)
    for step in range(50):
        schedule.set(step)
        assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"])
        theirs.step()
        reference.step()


def test_the_rate_depends_on_the_step_alone():
    _, optimizers, schedule = make()
    rates = []
    for order in (range(20), reversed(range(20))):
        for step in order:
            schedule.set(step)
            rates.append((step, *[g["lr"] for o in optimizers for g in o.param_groups]))
    assert len(set(rates)) == 20


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"warmup_steps": 101}, "warmup_steps must be from 0 to steps=100, got 101"),
    ],
)
def test_an_impossible_schedule_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        schedule_of(**settings)


def test_gradients_are_clipped_to_their_joint_norm():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    for parameter, value in zip(parameters, (3.0, 4.0), strict=True):
        parameter.grad = torch.tensor([value])
    assert clip_gradients(parameters, 1.0) == pytest.approx(5.0)
    assert [p.grad.item() for p in parameters] == pytest.approx([0.6, 0.8], rel=1e-5)


def test_a_borrowed_tower_learns_at_its_own_rate_or_stays_equal_to_the_last_bit() -> None:
    class Tower(Borrowed):
        def __init__(self, trained: bool) -> None:
            super().__init__()
            self.layers = nn.Linear(4, 4)
            self.borrow(trained)

    for trained in (False, True):
        model = nn.ModuleDict({"tower": Tower(trained), "rest": nn.Linear(4, 4)})
        before = {name: value.clone() for name, value in model.state_dict().items()}
        settings = OptimSettings(tower_lr=1e-5, adamw_lr=1e-2, warmup_steps=0)
        learner = settings.learner(model, steps=5)
        for step in range(5):
            states = model["tower"].layers(torch.ones(2, 4))
            update(step, model["rest"](states).square().sum(), [learner])
        moved = {name: (model.state_dict()[name] - before[name]).abs().max() for name in before}
        assert moved["rest.weight"] > 1e-2
        assert moved["tower.layers.weight"] <= (6e-5 if trained else 0)
        assert torch.equal(model["tower"].layers.weight, before["tower.layers.weight"]) != trained

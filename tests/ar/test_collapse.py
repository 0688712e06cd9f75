"""The monitors on a toy: they stop what collapses, and leave alone what does not.

Data of 12 dimensions from 6 factors, two of which make a class; an encoder to 4 tokens of 2
channels, standardised by the batch; its stage 1 is reconstruction and classification. The cap is
stage 3's own. What must be stopped is run with five seeds; what must not, with one and 60 steps
here, and with five and 200 steps in a long form.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ar import ARConfig, ARModel
from ar.joint import Junction, Limits, Route, TrunkAlignment, broken, kept_deviations, own_loss
from orderer.evaluation import participation_rank
from recipes.engine.ema import moving_average
from recipes.training_settings import JointTraining

FACTORS, SEEN, CLASSES = 6, 12, 4
CAP = JointTraining().cap
ENCODER_LR, AR_LR = 2e-4, 2e-3
WEIGHT = 0.5


class Toy(nn.Module):
    """An orderer as small as one can be."""

    def __init__(self) -> None:
        super().__init__()
        self.encode_in = mlp(SEEN, 8)
        self.norm = nn.BatchNorm1d(8, affine=False)
        self.rebuild = mlp(8, SEEN)
        self.classify = nn.Linear(2, CLASSES)
        self.texts = nn.Embedding(CLASSES, 8)

    def encode(self, x: Tensor) -> Tensor:
        return self.norm(self.encode_in(x)).view(-1, 4, 2)

    def stage_1(self, tokens: Tensor, x: Tensor, label: Tensor) -> Tensor:
        error = (self.rebuild(tokens.flatten(1)) - x).square().mean()
        return error + 0.2 * F.cross_entropy(self.classify(tokens[:, 0]), label)


def mlp(inside: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inside, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, out)
    )


def world(seed: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Draws pairs: what is seen, and its class."""
    mix = torch.randn(FACTORS, SEEN, generator=torch.Generator().manual_seed(seed))

    def draw(number: int) -> tuple[Tensor, Tensor]:
        factors = torch.randn(number, FACTORS)
        factors[:, :2] = factors[:, :2].sign() + 0.2 * torch.randn(number, 2)
        label = (factors[:, 0] > 0).long() + 2 * (factors[:, 1] > 0).long()
        return torch.tanh(factors @ mix / 2) + 0.02 * torch.randn(number, SEEN), label

    return draw


def ar_model() -> ARModel:
    return ARModel(
        ARConfig(
            tokens=4,
            token_dim=2,
            condition="none",
            width=32,
            heads=2,
            layers=2,
            mlp_width=64,
            head_width=64,
            head_layers=2,
            timesteps="uniform",
            draws=4,
        )
    ).train()


def stage_1(seed: int, steps: int = 400) -> tuple[Toy, Callable[[int], tuple[Tensor, Tensor]]]:
    torch.manual_seed(seed)
    draw, toy = world(seed), Toy()
    optimizer = torch.optim.AdamW(toy.parameters(), lr=3e-3)
    for _ in range(steps):
        x, label = draw(256)
        loss = toy.stage_1(toy.encode(x), x, label)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return toy, draw


def stage_3(route: Route, seed: int, steps: int, cap: float | None = CAP) -> str | None:
    """Train both; what stopped it, if anything."""
    toy, draw = stage_1(seed)
    probe = draw(512)[0]
    model = ar_model()
    alignment = TrunkAlignment(model, embed_dim=8) if route == "align" else None
    generating = nn.ModuleList([model, *([alignment] if alignment else [])])
    optimizers = (
        torch.optim.AdamW(generating.parameters(), lr=AR_LR),
        torch.optim.AdamW(toy.parameters(), lr=ENCODER_LR),
    )
    average = moving_average(toy, 0.99)
    first = encoded(toy, probe)
    start = figures(first, first)
    for step in range(steps):
        x, label = draw(256)
        tokens = toy.encode(x)
        junction = Junction(tokens, WEIGHT, cap)
        with torch.no_grad():
            targets = average.module.eval().encode(x)
        condition = model.unconditioned(len(x))
        loss = own_loss(route, model, junction.seen, condition, targets).mean()
        if alignment:
            loss = loss + aligned(alignment(model, junction.seen), toy.texts.weight, label)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        toy.stage_1(tokens, x, label).backward()
        for optimizer in optimizers:
            optimizer.step()
        average.update_parameters(toy)
        if step % 10 == 9 and (
            complaint := broken(start, figures(first, encoded(toy, probe)), Limits())
        ):
            return complaint
    return None


def aligned(at: Tensor, texts: Tensor, label: Tensor) -> Tensor:
    logits = 10 * at @ F.normalize(texts.detach(), dim=-1).T  # [B, 3, classes]
    return F.cross_entropy(logits.flatten(0, 1), label.repeat_interleave(at.shape[1]))


@torch.no_grad()
def encoded(toy: Toy, probe: Tensor) -> Tensor:
    tokens = toy.eval().encode(probe)
    toy.train()
    return tokens


def figures(first: Tensor, tokens: Tensor) -> dict[str, float]:
    return {"rank": participation_rank(tokens), **kept_deviations(first, tokens)}


@pytest.mark.parametrize("seed", range(5))
def test_the_full_route_is_stopped_for_its_rank(seed: int) -> None:
    assert (stage_3("full", seed, 200, cap=None) or "").startswith("rank is ")


def test_alignment_without_a_cap_is_stopped_for_its_rank() -> None:
    assert (stage_3("align", 0, 60, cap=None) or "").startswith("rank is ")


@pytest.mark.parametrize("route", ["apart", "align", "context"])
def test_a_route_that_is_capped_goes_on(route: Route) -> None:
    assert stage_3(route, 0, 60) is None


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
def test_no_seed_collapses_by_a_route_that_is_capped(seed: int) -> None:
    for route in ("apart", "align", "context"):
        assert stage_3(route, seed, 200) is None, route

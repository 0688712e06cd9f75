"""Sampling and training of an AR model with a denoising head, against the plain way.

The trunk is a Llama, the head 6 residual blocks, the weights are random, there is neither condition
nor guidance. Figures are of CPU time on one thread. The sides of a case:

- `sample_same_maths`: MAR's form of the head, Euler's 25 steps. Ours (`ARModel.generate`, packed)
  computes the modulations of all steps of a token in one product; the reference (`PlainAR.sample`)
  those of each step anew, with torch's linear layers, and always in fp32. From the same noise, so
  the largest difference of any channel, whose deviation is about 1, is the error.
- `sample_K_steps`: ours with the head that time alone modulates, packed, in bf16 where it can be,
  with fewer steps; the reference is the same plain loop with its 25. Other weights: there is no
  error to give.
- `train`: a step with the head that time alone modulates, 4 draws per token. Ours: timesteps shared
  by the tokens of an image, oneDNN's products where they are exact, fused AdamW. The reference:
  timesteps drawn for each token, torch's products and AdamW, always in fp32. The error is that of
  our loss against the same without oneDNN or bf16.
- `cost`: the same model of ours against itself at 64 tokens, 8 steps, batch 4.
- `linear`: what limits them: the head's layers in turn, so that weights come from memory.
"""

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ar import ARConfig, ARModel, Sampling
from ar.sampling import row_noise
from orderer.packed import PackedLinear, pack
from recipes.engine.bf16 import Precision
from recipes.engine.fast_matmul import use_fast_matmul, use_own_matmul
from recipes.engine.optim import make_optimizers
from recipes.engine.training import precise

from .case import DTYPES, FASTEST, Case, cpu_seconds, in_turns
from .plain_ar import PlainAR

SIZE: dict[str, Any] = {
    "tokens": 64,
    "token_dim": 16,
    "width": 512,
    "heads": 8,
    "layers": 8,
    "mlp_width": 1536,
    "head_width": 1024,
    "head_layers": 6,
}
FORM: dict[str, Any] = {"condition": "none", "prediction": "velocity", "draws": 4}
STEPS = 25
FEW_STEPS = (8, 4)
BATCHES = (1, 16)
TRAINED = 8
"""Images of a training step."""
BASE = {"tokens": 64, "steps": 8, "batch": 4}
COSTS = {"tokens": (16, 32, 64), "steps": (4, 8, 16, 25), "batch": (1, 4, 16)}


def measure(runs: int) -> Iterator[Case]:
    """Measure sampling and training on one thread.

    Args:
        runs: of each side.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    by_token, by_time = make_model("token"), make_model("time")
    for rows in BATCHES:
        for precision in DTYPES:
            yield _linear(rows, precision, runs)
    for batch in BATCHES:
        yield from _sampling(by_token, by_time, batch, runs)
    for precision in DTYPES:
        yield _training(by_time, precision, runs)
    yield from _costs(by_time, runs)


def make_model(modulation: Literal["time", "token"]) -> ARModel:
    """A model whose layers that start at zero have weights, so that its outputs mean something."""
    model = ARModel(ARConfig(**SIZE, **FORM, modulation=modulation)).eval()
    for parameter in model.head.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def _linear(rows: int, precision: Precision, runs: int) -> Case:
    """Layers of the head in turn, packed, against torch's in fp32."""
    width = SIZE["head_width"]
    layers = [nn.Linear(width, width) for _ in range(2 * SIZE["head_layers"])]
    packed = [PackedLinear(layer, DTYPES[precision]) for layer in layers]
    x = torch.randn(rows, width)
    times = 64 // rows
    work = 2e-9 * times * rows * width**2 * len(layers)

    def rate(layers: list[Any]) -> float:
        with torch.no_grad():
            return work / cpu_seconds(lambda: [layer(x) for _ in range(times) for layer in layers])

    name, unit = f"linear_{rows}_rows_{precision}", "GFLOP/s of one core"
    return in_turns(name, unit, lambda: rate(packed), lambda: rate(layers), runs)


def _sampling(by_token: ARModel, by_time: ARModel, batch: int, runs: int) -> Iterator[Case]:
    plain, count = PlainAR(by_token), SIZE["tokens"]
    noise_shape = (count, 1, SIZE["token_dim"])
    noise = row_noise(range(batch), noise_shape, torch.device("cpu"))[:, :, 0]
    sides = {
        f"sample_same_maths_{STEPS}_steps_batch_{batch}_{precision}": Side(
            _sampler(pack(by_token, dtype), batch, STEPS), count
        )
        for precision, dtype in DTYPES.items()
    }
    packed = pack(by_time, DTYPES[FASTEST])
    for steps in FEW_STEPS:
        name = f"sample_{steps}_steps_batch_{batch}_{FASTEST}"
        sides[name] = Side(_sampler(packed, batch, steps), count)
    sides["plain"] = Side(lambda tokens: plain.sample(noise[:, :tokens], STEPS), count)
    found, seconds = _take_turns(sides, runs)
    for name, ours in seconds.items():
        if name != "plain":
            error = (found[name] - found["plain"]).abs().max().item()
            errors = {"error_ours": error} if "same_maths" in name else {}
            yield _case(name, ours, seconds["plain"], errors)


def _costs(model: ARModel, runs: int) -> Iterator[Case]:
    """What it costs to change one of tokens, steps and batch."""
    packed = pack(model, DTYPES[FASTEST])

    def side(tokens: int, steps: int, batch: int) -> Side:
        return Side(_sampler(packed, batch, steps), tokens)

    sides = {
        f"cost_of_{what}_{value}": side(**{**BASE, what: value})
        for what, values in COSTS.items()
        for value in values
    }
    _, seconds = _take_turns({**sides, "base": side(**BASE)}, runs)
    for name in sides:
        yield _case(name, seconds[name], seconds["base"], {})


class Side(NamedTuple):
    """Something that draws as many tokens as it is told, and how many it is to draw."""

    draw: Callable[[int], Tensor]
    tokens: int


def _sampler(model: ARModel, batch: int, steps: int) -> Callable[[int], Tensor]:
    sampling, condition = Sampling(guidance_scale=1.0, steps=steps), model.unconditioned(batch)
    return lambda tokens: model.generate(
        condition, sampling=sampling, seeds=range(batch), prefix=tokens
    )


def _take_turns(
    sides: Mapping[str, Side], runs: int
) -> tuple[dict[str, Tensor], dict[str, tuple[float, ...]]]:
    """Sample in turns, after two tokens of each that do not count: what came out, and seconds."""
    found = {name: side.draw(2) for name, side in sides.items()}
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(sides, ())
    for _ in range(runs):
        for name, side in sides.items():
            began = time.process_time()
            found[name] = side.draw(side.tokens)
            seconds[name] += (time.process_time() - began,)
    return found, seconds


def _case(
    name: str, ours: tuple[float, ...], reference: tuple[float, ...], errors: Mapping[str, float]
) -> Case:
    return Case(name=name, unit="s", ours=ours, reference=reference, is_rate=False, errors=errors)


def _training(model: ARModel, precision: Precision, runs: int) -> Case:
    tokens = torch.randn(TRAINED, SIZE["tokens"], SIZE["token_dim"])
    ours, plain = our_step(model, tokens, precision), plain_step(model, tokens)
    with torch.no_grad():
        exact = _loss(model, tokens).item()
    error = abs(ours() - exact)  # the first step's, before any update
    return in_turns(
        f"train_step_batch_{TRAINED}_{precision}",
        "s",
        lambda: cpu_seconds(ours),
        lambda: cpu_seconds(plain),
        runs,
        is_rate=False,
        errors={"error_ours": error},
    )


def our_step(model: ARModel, tokens: Tensor, precision: Precision) -> Callable[[], float]:
    """A step of training a copy of a model, as the recipes do it, on the same noise every time."""
    model = copy.deepcopy(model).train()
    (adamw,) = make_optimizers(
        model, lambda *_: False, muon_lr=0.0, adamw_lr=1e-4, weight_decay=0.01
    )

    def step() -> float:
        use_fast_matmul()
        with precise(tokens.device, precision):
            loss = _loss(model, tokens)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        use_own_matmul()
        return loss.item()

    return step


def plain_step(model: ARModel, tokens: Tensor) -> Callable[[], float]:
    """The same in plain torch, in fp32, on new noise every time."""
    plain = PlainAR(model)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-4)

    def step() -> float:
        loss = plain.loss(tokens)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return loss.item()

    return step


def _loss(model: ARModel, tokens: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return model.loss(tokens, model.unconditioned(len(tokens)), generator).mean()

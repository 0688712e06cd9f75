"""The orderer at the size of TiTok-S/128: packed and without idle work, against plain torch.

Source of the size: Yu et al. 2024, https://arxiv.org/abs/2406.07550, and its code, bytedance/
1d-tokenizer, `modeling/modules/blocks.py`: 8 layers, width 512, 8 heads.
"""

import copy
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from orderer import Orderer, OrdererConfig
from orderer.packed import PackedLinear, pack
from recipes.engine.bf16 import Precision
from recipes.engine.fast_matmul import use_fast_matmul, use_own_matmul
from recipes.engine.optim import make_optimizers
from recipes.engine.training import precise

from .case import DTYPES, Case, cpu_seconds, in_turns
from .stock_orderer import StockOrderer

SIZE = {
    "image_size": 256,
    "patch_size": 16,
    "tokens": 128,
    "token_dim": 16,
    "width": 512,
    "heads": 8,
    "mlp_ratio": 4,
    "encoder_layers": 8,
    "decoder_layers": 8,
}
NOT_RUN = {"text_width": 16, "text_heads": 1, "text_layers": 1, "readout_layers": 1}
"""Kept small: neither side measures it."""
BATCH = 4
GPU_BATCH = 256
PRODUCT = 8192
"""Side of the matrices whose product gives a GPU's rate."""


def measure(runs: int) -> Iterator[Case]:
    """Measure encoding and training on one core, or training on a GPU if there is one.

    Args:
        runs: of each side.
    """
    torch.manual_seed(0)
    model = Orderer(OrdererConfig(**SIZE, **NOT_RUN)).eval()
    if torch.cuda.is_available():
        yield share_of_rate(model, torch.device("cuda"), runs)
        return
    torch.set_num_threads(1)
    images = draw_images(model, BATCH)
    for precision in DTYPES:
        yield _linears(precision, runs)
        yield _encoding(model, images, precision, runs)
        yield _prefix(model, images, precision, runs)
        yield _training(model, images, precision, runs)


def _linears(precision: Precision, runs: int) -> Case:
    """The widest layer: what bounds all the rest, since nine tenths of the work are such layers."""
    width = SIZE["width"]
    linear = nn.Linear(width, SIZE["mlp_ratio"] * width).to(DTYPES[precision])
    packed = PackedLinear(linear, DTYPES[precision])
    x = torch.randn(BATCH * (SIZE["tokens"] + _patches()), width, dtype=DTYPES[precision])
    work = 2e-9 * x.shape[0] * linear.weight.numel()

    def rate(layer: Callable[[Tensor], Tensor]) -> float:
        return work / cpu_seconds(lambda: layer(x))

    name = f"linear_{precision}"
    return in_turns(name, "GFLOP/s of one core", lambda: rate(packed), lambda: rate(linear), runs)


def _encoding(model: Orderer, images: Tensor, precision: Precision, runs: int) -> Case:
    ours, stock = pack(model, DTYPES[precision]), StockOrderer(model).eval()
    pixels = images / 127.5 - 1

    def reference() -> Tensor:
        with precise(images.device, precision):
            return stock.encode(pixels)

    with torch.no_grad():
        exact = StockOrderer(model).double().encode(images.double() / 127.5 - 1)
        errors = {
            "error_ours": _error(ours.encode(images), exact),
            "error_reference": _error(reference(), exact),
        }
    return in_turns(
        f"encode_{SIZE['image_size']}px_{precision}",
        "images/s of one core",
        lambda: _rate(lambda: ours.encode(images)),
        lambda: _rate(reference),
        runs,
        errors=errors,
    )


def _prefix(model: Orderer, images: Tensor, precision: Precision, runs: int) -> Case:
    ours, prefix = pack(model, DTYPES[precision]), SIZE["tokens"] // 8
    return in_turns(
        f"encode_{prefix}_of_{SIZE['tokens']}_tokens_{precision}",
        "images/s of one core",
        lambda: _rate(lambda: ours.encode(images, prefix)),
        lambda: _rate(lambda: ours.encode(images)),
        runs,
    )


def _training(model: Orderer, images: Tensor, precision: Precision, runs: int) -> Case:
    ours, stock = our_step(model, images, precision), stock_step(model, images, precision)
    with torch.no_grad():
        exact = StockOrderer(model).double().loss(images.double() / 127.5 - 1).item()
    errors = {"error_ours": abs(ours() - exact), "error_reference": abs(stock() - exact)}
    return in_turns(
        f"train_step_{SIZE['image_size']}px_{precision}",
        "s",
        lambda: cpu_seconds(ours),
        lambda: cpu_seconds(stock),
        runs,
        is_rate=False,
        errors=errors,
    )


def our_step(model: Orderer, images: Tensor, precision: Precision) -> Callable[[], float]:
    """A step of training a copy of a model's encoder and decoder, as the recipes do it."""
    model = copy.deepcopy(model)
    (adamw,) = make_optimizers(
        nn.ModuleList([model.encoder, model.decoder]),
        lambda *_: False,
        muon_lr=0.0,
        adamw_lr=1e-4,
        weight_decay=0.01,
    )
    keep = torch.ones(len(images), model.config.tokens, dtype=torch.bool, device=images.device)

    def step() -> float:
        use_fast_matmul()
        with precise(images.device, precision):
            loss = model.rebuild(model.sample_tokens(images).tokens, keep, images).loss
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        use_own_matmul()
        return loss.item()

    return step


def stock_step(model: Orderer, images: Tensor, precision: Precision) -> Callable[[], float]:
    """The same in plain torch, on pixels that are normalised before."""
    stock, pixels = StockOrderer(model), images / 127.5 - 1
    adamw = torch.optim.AdamW(stock.parameters(), lr=1e-4)

    def step() -> float:
        with precise(images.device, precision):
            loss = stock.loss(pixels)
        adamw.zero_grad()
        loss.backward()
        adamw.step()
        return loss.item()

    return step


def share_of_rate(model: Orderer, device: torch.device, runs: int) -> Case:
    """Operations per second of a training step in bf16, against those of one large product."""
    images = draw_images(model, GPU_BATCH).to(device)
    step = our_step(model.to(device), images, "bf16")
    with FlopCounterMode(display=False) as counter:
        step()
    work = counter.get_total_flops() / 1e12
    a, b = torch.randn(2, PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16)
    return in_turns(
        "train_step_share_of_matrix_rate",
        "TFLOP/s",
        lambda: work / _seconds_of_device(step, device),
        lambda: 2e-12 * PRODUCT**3 / _seconds_of_device(lambda: a @ b, device),
        runs,
    )


def draw_images(model: Orderer, number: int) -> Tensor:
    """Images of noise, the same every time."""
    side = model.config.image_size
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (number, 3, side, side), dtype=torch.uint8, generator=generator)


def _patches() -> int:
    return (SIZE["image_size"] // SIZE["patch_size"]) ** 2


def _error(tokens: Tensor, exact: Tensor) -> float:
    """The largest of all channels, whose deviation is 1."""
    return (tokens.double() - exact).abs().max().item()


def _rate(encode: Callable[[], Tensor]) -> float:
    with torch.no_grad():
        return BATCH / cpu_seconds(encode)


def _seconds_of_device(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

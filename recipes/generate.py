r"""Draw images from captions with a trained orderer and AR model.

    python -m recipes.generate --models=runs/demo \
        --captions='["a small red ring at centre on a dark ground"]'
    python -m recipes.generate --models=runs/demo --captions='["a red ring at centre"]' \
        --search.candidates=8

Reads MODELS/orderer and MODELS/ar; writes OUT, a picture with the caption under each image. With
`--prefix` it draws only the first tokens of each. With `--search.candidates` it draws many for each
caption, keeps the one that the orderer itself finds nearest to it, and prints how near that is and
how many tokens were drawn. Takes seconds.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ar import ARModel, Sampling, Search, search_tokens
from orderer import OrdererProcessor
from orderer.sequences import load_sequence
from recipes.conditions import condition_on
from recipes.engine.cli import run as start
from recipes.engine.sheets import captioned_grid
from recipes.engine.training import prepare_alone
from recipes.own_score import own_score


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to draw with what."""

    models: Path
    """Folder that holds `orderer` and `ar`, as a training leaves them."""
    captions: tuple[str, ...]
    out: Path = Path("generated.png")
    sampling: Sampling = field(default_factory=Sampling)
    search: Search = field(default_factory=Search)
    prefix: int | None = None
    """Tokens to draw of each image; null draws all."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.captions:
            raise ValueError("captions must hold at least one caption, got none")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"seed must be at least 0 and below 2^62, got {self.seed}")


@torch.inference_mode()
def main(config: Config) -> None:
    """Load, sample, decode, draw."""
    device = prepare_alone()
    orderer = load_sequence(config.models / "orderer").to(device)
    processor = OrdererProcessor.from_pretrained(config.models / "orderer")
    model = ARModel.from_pretrained(config.models / "ar").to(device).eval()
    model.check_orderer(orderer.encoding_hash())

    found = search_tokens(
        model,
        condition_on(config.captions, model, orderer, processor),
        own_score(config.captions, orderer, processor),
        config.search,
        sampling=config.sampling,
        seeds=range(config.seed, config.seed + len(config.captions)),
        prefix=config.prefix,
    )
    if config.search.candidates > 1:
        for caption, score, drawn in zip(config.captions, found.scores, found.drawn, strict=True):
            print(f"{score:.3f} from {drawn} tokens: {caption}")
    images = processor.images(orderer.decode(found.tokens))
    pixels = np.stack([np.asarray(image).transpose(2, 0, 1) for image in images])
    captioned_grid(pixels, config.captions, config.out)
    print(config.out)


if __name__ == "__main__":
    start(main, Config)

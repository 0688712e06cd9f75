r"""Make a retrieval index: embeddings of a set of images, at the prefixes that are asked for.

    python -m recipes.index --models=runs/demo --count=500 --out=runs/index
    python -m recipes.index --models=OWNER/NAME --revision=COMMIT --data.source='[FOLDER]' \
        --split=val --prefixes='[1, 4, 16]' --precision=fp16 --out=runs/index

Reads MODELS/orderer, or an orderer of a hub; writes the folder OUT: embeddings, keys and captions
of the images, and what they were made with. `python -m recipes.search_index` searches in it. Memory
holds the index and one batch of images. Takes seconds for a thousand small images.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tqdm import tqdm

from data import Damaged, Framing, Pair, PairSource, check_skipped, open_source, read_all
from orderer import Orderer, prefix_lengths
from orderer.index import ABOUT, About, RetrievalIndex
from recipes.data_settings import DataSettings, tell_skipped
from recipes.engine.cli import run as start
from recipes.engine.settings import at_least
from recipes.engine.training import prepare_alone
from recipes.loading import load_orderer

BATCH = 250


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to index with what."""

    models: str
    """Folder that holds `orderer`, or is one, or OWNER/NAME on a hub."""
    out: Path
    """Folder of the index."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    data: DataSettings = field(default_factory=DataSettings)
    split: str = "val"
    count: int | None = None
    """Images to index, the first ones; null takes all that a folder has."""
    prefixes: tuple[int, ...] = ()
    """Numbers of tokens whose embeddings are kept; none: 1, 2, 4 and so on, up to all."""
    captions: bool = True
    """False leaves the captions out: hits are then known by their keys."""
    precision: Literal["fp32", "fp16"] = "fp32"
    """Of what is stored; models compute in fp32."""

    def __post_init__(self) -> None:
        at_least(1, **{"prefixes": min(self.prefixes, default=1), "count": self.count or 1})


@torch.inference_mode()
def main(config: Config) -> None:
    """Encode, embed, write."""
    model, _ = load_orderer(config.models, config.revision, prepare_alone())
    prefixes = sorted(set(config.prefixes or prefix_lengths(model.config.tokens)))
    if prefixes[-1] > model.config.tokens:
        raise ValueError(f"prefixes must lie in 1..{model.config.tokens}, got {prefixes[-1]}")
    opened = {"source": list(config.data.source), "split": config.split, "count": config.count}
    pairs = open_source(
        config.data.source,
        config.split,
        image_size=model.config.image_size,
        count=config.count,
        max_skipped=config.data.max_skipped,
        columns=config.data.columns,
    )
    shape = len(prefixes), len(pairs), model.config.embed_dim
    _check_free(config.out, model, opened)
    kept = torch.empty(
        shape, dtype={"fp32": torch.float32, "fp16": torch.float16}[config.precision]
    )
    rows, keys, captions, skipped = (
        list[int](),
        list[str](),
        list[tuple[str, ...]](),
        Counter[str](),
    )
    for batch in _batches(pairs, model.config.image_size, skipped):
        first = len(keys)
        for row, pair in batch:
            rows.append(row)
            keys.append(pair.key)
            captions.append(pair.captions if config.captions else ())
        kept[:, first : len(keys)] = _embedded([pair for _, pair in batch], model, prefixes)
    tell_skipped(pairs.name, skipped)
    check_skipped(pairs, len(keys), skipped, config.data.max_skipped)
    assert model.saved is not None  # it was loaded
    index = RetrievalIndex(
        embeddings={k: kept[place, : len(keys)] for place, k in enumerate(prefixes)},
        keys=tuple(keys),
        captions=tuple(captions),
        rows=torch.tensor(rows),
        about=About(
            encoding_hash=model.encoding_hash(),
            embedding_hash=model.embedding_hash(),
            orderer=model.saved.origin(),
            fingerprint=pairs.fingerprint,
            data={**opened, "columns": asdict(config.data.columns)},
            skipped=dict(skipped),
        ),
    )
    index.save(config.out)
    at = ", ".join(map(str, prefixes))
    print(f"{config.out}: {len(index)} images at the prefixes {at}, in {config.precision}")


def _check_free(folder: Path, model: Orderer, opened: dict[str, Any]) -> None:
    """Refuse to bury another index; one of the same orderer and pairs is made anew.

    Raises:
        ValueError: if the folder holds an index of another orderer or of other pairs.
    """
    if not (folder / ABOUT).is_file():
        return
    about = RetrievalIndex.open(folder).about
    about.check_orderer(model)
    for name in ("source", "split"):
        if about.data.get(name) != opened[name]:
            raise ValueError(
                f"{folder} holds an index of other pairs, {name} {about.data.get(name)}, got "
                f"{opened[name]}: give another out"
            )


def _batches(
    pairs: PairSource, size: int, skipped: Counter[str]
) -> Iterator[list[tuple[int, Pair]]]:
    """The good pairs with their numbers, BATCH at a time; the bad ones are counted."""
    batch = []
    bar = tqdm(read_all(pairs, Framing(size=size)), "index", len(pairs), unit="img", disable=None)
    for row, pair in enumerate(bar):
        if isinstance(pair, Damaged):
            skipped[pair.reason] += 1
            continue
        batch.append((row, pair))
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _embedded(pairs: list[Pair], model: Orderer, prefixes: list[int]) -> torch.Tensor:
    """Unit embeddings [J, B, E] of images, at some prefixes."""
    pixels = torch.from_numpy(np.stack([pair.image for pair in pairs])).permute(0, 3, 1, 2)
    tokens = model.encode(pixels.to(model.device), max(prefixes))
    return model.readout(tokens, prefixes).transpose(0, 1).cpu()


if __name__ == "__main__":
    start(main, Config)

r"""Search an index by texts and by images, and draw what was found.

    python -m recipes.search_index --models=runs/demo --index=runs/index \
        --texts='["a red ring at centre"]' --picture=found.png
    python -m recipes.search_index --models=runs/demo --index=runs/index --images='[cat.jpg]' \
        --prefix=16 --coarse=1 --channels=16

Prints the hits of every query: score, key and first caption; scores are cosines. Search is exact,
by faiss where that is installed and the index is large. With `--coarse` an embedding of a shorter
prefix, cut to `--channels` principal components, finds candidates that the longer one ranks; then
the share of the exact hits that were found is printed too. The picture reads the images again from
where the index was made. Takes seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import Columns, Damaged, DamagedImage, Framing, decode_image, decoded, open_source
from orderer import Orderer, OrdererProcessor
from orderer.index import RetrievalIndex
from orderer.search import CoarseToFine, Hits, agreement, make_search
from recipes.engine.cli import run as start
from recipes.engine.settings import at_least
from recipes.engine.sheets import captioned_grid
from recipes.engine.training import prepare_alone
from recipes.loading import load_orderer


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to look for, and where."""

    models: str
    """Folder that holds `orderer`, or is one, or OWNER/NAME on a hub: the index' own."""
    index: Path
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    texts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    """JPEG, PNG or WebP files."""
    prefix: int | None = None
    """Tokens whose embedding ranks; null takes the most that the index has."""
    count: int = 8
    """Hits for each query."""
    coarse: int | None = None
    """Tokens whose embedding finds candidates; null compares with all images."""
    channels: int | None = None
    """Principal components of the coarse embedding that are compared; null takes all of it."""
    candidates: int = 100
    picture: Path | None = None
    """PNG file of the hits, one query a row."""

    def __post_init__(self) -> None:
        at_least(1, count=self.count, candidates=self.candidates)
        if not self.texts and not self.images:
            raise ValueError("a search needs texts or images, got none")
        if self.picture is not None and self.picture.suffix.lower() != ".png":
            raise ValueError(f"picture must end in .png, got {self.picture}")
        if self.coarse is None and self.channels is not None:
            raise ValueError(f"channels are those of a coarse search, got {self.channels} without")


@dataclass(frozen=True, kw_only=True, eq=False)
class Query:
    """What is looked for; `pixels` [3, S, S] are None for a text."""

    name: str
    pixels: Tensor | None = None


@torch.inference_mode()
def main(config: Config) -> None:
    """Load, embed the queries, search, print, draw."""
    model, processor = load_orderer(config.models, config.revision, prepare_alone())
    index = RetrievalIndex.open(config.index)
    index.about.check_orderer(model)
    prefix = max(index.embeddings) if config.prefix is None else config.prefix
    if config.coarse is not None and config.coarse >= prefix:
        raise ValueError(
            f"coarse must be below the prefix that ranks, {prefix}, got {config.coarse}"
        )
    queries = [Query(name=text) for text in config.texts]
    queries += [Query(name=str(path), pixels=_read(path, processor)) for path in config.images]
    embedded = _embedded(queries, model, processor, prefix)
    hits = make_search(index.at(prefix))(embedded, config.count)
    if config.coarse is not None:
        exact = hits
        search = CoarseToFine(
            index.at(config.coarse),
            index.at(prefix),
            candidates=config.candidates,
            channels=config.channels,
        )
        coarse = _embedded(queries, model, processor, config.coarse)
        hits = search(coarse, embedded, config.count)
        share = agreement(hits.places, exact.places)
        print(f"{share:.3f} of the exact hits are among those found from {config.coarse} tokens")
    for number, query in enumerate(queries):
        print(query.name)
        for line in _lines(hits, number, index):
            print(f"    {line}")
    if config.picture is not None:
        _draw(queries, hits, index, processor.image_size, config.picture)
        print(config.picture)


def _read(path: Path, processor: OrdererProcessor) -> Tensor:
    try:
        levels = decode_image(path.read_bytes())
    except DamagedImage as error:
        raise ValueError(f"{path} is no image to search by: {error}") from error
    return processor.pixels([Image.fromarray(levels)])[0]


def _embedded(
    queries: Sequence[Query], model: Orderer, processor: OrdererProcessor, prefix: int
) -> Tensor:
    """Embeddings [Q, E]; that of a text is the same for all prefixes."""
    parts = []
    for query in queries:
        if query.pixels is None:
            text = processor.text([query.name]).to(model.device)
            parts.append(model.embed_texts(text))
        else:
            parts.append(model.embed_images(query.pixels[None].to(model.device), prefix))
    return torch.cat(parts).cpu()


def _lines(hits: Hits, query: int, index: RetrievalIndex, keys: bool = True) -> list[str]:
    """One for each hit of a query: its score, its key if asked for, and its first caption."""
    found = zip(hits.places[query].tolist(), hits.scores[query].tolist(), strict=True)
    return [
        " ".join([f"{score:.3f}", *[index.keys[place]] * keys, *index.captions[place][:1]])
        for place, score in found
    ]


def _draw(
    queries: Sequence[Query], hits: Hits, index: RetrievalIndex, size: int, path: Path
) -> None:
    """One query a row, which begins with the query itself."""
    pixels, texts = [], []
    pictures = _pictures(index, hits.places.unique().tolist(), size)
    for number, query in enumerate(queries):
        blank = np.full((3, size, size), 255, np.uint8)
        pixels.append(blank if query.pixels is None else query.pixels.numpy())
        texts.append(Path(query.name).name if query.pixels is not None else query.name)
        pixels += [pictures[place] for place in hits.places[number].tolist()]
        texts += _lines(hits, number, index, keys=not any(index.captions))
    captioned_grid(np.stack(pixels), texts, path, hits.places.shape[1] + 1)


def _pictures(index: RetrievalIndex, places: Sequence[int], size: int) -> dict[int, np.ndarray]:
    """Read images again; those that are damaged by now stay white."""
    data, columns = index.about.data, index.about.data["columns"]
    pairs = open_source(
        data["source"],
        data["split"],
        image_size=size,
        count=data["count"],
        max_skipped=1.0,
        columns=Columns(**columns | {"captions": tuple(columns["captions"])}),
    )
    if pairs.fingerprint != index.about.fingerprint:
        raise ValueError(f"{pairs.name} has changed since it was indexed: no picture can be drawn")
    found = {}
    for place in places:
        row = int(index.rows[place])
        pair = decoded(pairs.read(row))
        shown = np.full((size, size, 3), 255, np.uint8)
        if not isinstance(pair, Damaged):
            shown = Framing(size=size).show(pair.image, 0, 0, row)
        found[place] = shown.transpose(2, 0, 1)
    return found


if __name__ == "__main__":
    start(main, Config)

r"""Measure a model of open_clip by the same code as an orderer, for comparison.

    python -m recipes.evaluate_clip --model=ViT-B-32@clip.safetensors --data.source='[FOLDER]' \
        --data.test=test --data.test_count=null --out=runs/clip
    python -m recipes.evaluate_clip classification --model=FOLDER --data.source='[cifar10]' \
        --data.templates='[open_clip:openai]'

Reads a model with both its sides, weights in safetensors; shows it images by its own preprocessing
and captions by its own tokenizer, which cuts long ones. Its embedding of the whole image stands at
prefix 1. OpenAI's weights are of the names that end in -quickgelu. Writes OUT/evaluation.json.
Images are read as they are embedded; the time is the model's. Under torchrun each process embeds
its share, and the figures are those of one.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from data import open_source
from recipes.classifying import classification
from recipes.clip import Clip
from recipes.data_settings import DataSettings, tell_skipped
from recipes.embedding import Embedded, embed_images, embed_texts
from recipes.engine.cli import run as start
from recipes.engine.cli import with_words
from recipes.engine.processes import is_first
from recipes.engine.result_kinds import write_result
from recipes.engine.results import provenance
from recipes.engine.settings import plain_settings
from recipes.engine.training import prepare_device
from recipes.finding import find, queries
from recipes.protocol import about_intervals, about_ties

WHOLE = "1"
"""The only prefix."""
FLOOR = 5
"""Times chance: a released model that finds less was given the wrong split or preprocessing."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to measure on what."""

    model: str
    """NAME@FILE.safetensors, or a folder as open_clip saves one."""
    out: Path = Path("runs/clip")
    tasks: tuple[Literal["retrieval", "classification"], ...] = ("retrieval",)
    """`classification` is for labelled sets: an image's only caption is the name of its class."""
    captions: Literal["all", "last"] = "all"
    """Queries: every caption of an image, or the last."""
    data: DataSettings = field(default_factory=DataSettings)


def main(config: Config) -> None:
    """Embed, compare, write."""
    clip = Clip(config.model, prepare_device())
    pairs = open_source(
        config.data.source,
        config.data.test,
        image_size=_side(clip),
        count=config.data.test_count,
        max_skipped=config.data.max_skipped,
        columns=config.data.columns,
    )
    embedded = embed_images(pairs, clip, config.data.max_skipped)
    found = measure(config, clip, embedded)
    if not is_first():
        return
    tell_skipped(pairs.name, embedded.skipped)
    for warning in (
        too_low(found["retrieval"], len(embedded.captions)) if "retrieval" in found else ()
    ):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    write_result(
        config.out / "evaluation.json",
        "clip",
        {
            "results": {"clip": found},
            "models": {"clip": {"name": config.model, **clip.about()}},
            "protocol": protocol(config, embedded, pairs.fingerprint),
            "config": plain_settings(config),
            "seeds": [0],
            **provenance(),
        },
    )


def measure(config: Config, clip: Clip, embedded: Embedded) -> dict[str, Any]:
    """Take the figures that are asked for; call it on all processes."""
    at, templates = {WHOLE: embedded.images}, config.data.templates
    say = partial(embed_texts, clip=clip)
    found: dict[str, Any] = {}
    if "retrieval" in config.tasks:
        captions = queries(config.captions, templates, embedded.captions)
        found["retrieval"] = find(at, captions, say)
    if "classification" in config.tasks:
        found["classification"] = classification(embedded.captions, templates, at, say)
    return found


def too_low(found: dict[str, Any], images: int) -> list[str]:
    """Say in which directions a released model finds hardly more than chance would."""
    least = min(1.0, FLOOR / images)
    return [
        f"{direction} R@1 is {found[direction][WHOLE]['r1']:.4f}, below {FLOOR} times chance "
        f"({least:.4f}): look at the split, the preprocessing and the tokenizer"
        for direction in ("image_to_text", "text_to_image")
        if found[direction][WHOLE]["r1"] < least
    ]


def protocol(config: Config, embedded: Embedded, dataset: str) -> dict[str, Any]:
    """How the figures were taken."""
    return {
        "tasks": list(config.tasks),
        "split": config.data.test,
        "images": len(embedded.captions),
        "captions": sum(map(len, embedded.captions)),
        "skipped": dict(embedded.skipped),
        "dataset": dataset,
        "queries": config.captions,
        "templates": list(config.data.templates),
        "prefixes": f"{WHOLE} is the embedding of the whole image",
        "dtype": "model in float32, scores in float64, images in uint8",
        "ties": about_ties(),
        "intervals": about_intervals(),
        "rerank": 0,
    }


def _side(clip: Clip) -> int:
    """Pixels on a side, of scenes."""
    size = clip.showing["size"]
    return size if isinstance(size, int) else int(size[0])


if __name__ == "__main__":
    start(main, Config, with_words(sys.argv[1:], "tasks"))

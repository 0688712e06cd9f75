r"""Look into an orderer: what each token adds, where it looks, and what it says, as one page.

    python -m recipes.explain --models=runs/demo
    python -m recipes.explain --models=runs/flickr8k --data.source='[FOLDER]' \
        --images='[a.jpg, b.png]'

Reads MODELS/orderer and a split of pairs; explains the given images, or the first ones of the
split. Writes one HTML file that needs nothing else (OUT, by default MODELS/explain.html): for each
image its decoding, nearest captions and, from an orderer that writes, its caption at every prefix,
and where each token looks; over the split what each token adds (error, retrieval, likelihood of the
captions) and how much of it other tokens already say; for scenes, from which prefix on a linear map
reads each factor. On 2 CPU cores the default takes about a minute.
"""

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from data import DamagedImage, Pairs, decode_image
from orderer import Orderer, OrdererProcessor
from recipes.data_settings import DataSettings
from recipes.engine.cli import run as start
from recipes.engine.settings import at_least
from recipes.engine.training import prepare_alone
from recipes.explaining import Subject, explain
from recipes.explanation_page import write_explanation


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to explain."""

    models: Path
    """Folder that holds `orderer`, as a training leaves it."""
    images: tuple[Path, ...] = ()
    """Files of the images to explain; none takes the first of the split."""
    shown: int = 4
    """How many of the split to explain where no files are given."""
    data: DataSettings = field(default_factory=lambda: DataSettings(unseen=None))
    """The pairs of `data.test` are those whose captions are near or far, and that are measured."""
    draws: int = 8
    """Random directions of each token's attribution map; more are smoother."""
    probe_scenes: int = 3000
    """Scenes that the linear map of the factors is fitted on."""
    out: Path | None = None
    """The page; null writes MODELS/explain.html."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least(1, shown=self.shown, draws=self.draws, probe_scenes=self.probe_scenes)


def main(config: Config) -> None:
    """Load, measure, write the page."""
    device = prepare_alone()
    orderer = Orderer.from_pretrained(config.models / "orderer").to(device).eval()
    processor = OrdererProcessor.from_pretrained(config.models / "orderer")
    pairs = config.data.open_test(orderer.config.image_size)
    explanation = explain(
        orderer,
        processor,
        pairs,
        subjects(config, processor, pairs),
        draws=config.draws,
        scenes=config.probe_scenes if config.data.is_of_scenes else None,
        seed=config.seed,
    )
    out = config.out or config.models / "explain.html"
    write_explanation(out, explanation)
    print(out)


def subjects(config: Config, processor: OrdererProcessor, pairs: Pairs) -> list[Subject]:
    """The images to explain: those of the files, or the first of the split."""
    if config.images:
        pixels = processor.pixels([read_image(path) for path in config.images])
        return [
            Subject(name=path.name, image=image, captions=())
            for path, image in zip(config.images, pixels, strict=True)
        ]
    return [
        Subject(name=pairs.keys[i], image=pairs.images[i], captions=pairs.captions[i])
        for i in range(min(config.shown, len(pairs)))
    ]


def read_image(path: Path) -> Image.Image:
    """Open a JPEG, PNG or WebP file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it cannot be decoded.
    """
    try:
        return Image.fromarray(decode_image(path.read_bytes()))
    except DamagedImage as error:
        raise ValueError(f"{path} cannot be explained: {error.reason}") from error


if __name__ == "__main__":
    start(main, Config)

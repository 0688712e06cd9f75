"""The card of a model on a hub: what it is, how to load it, what it reached and how that was taken.

Format: https://huggingface.co/docs/hub/model-cards
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCardData

from recipes.engine.files import JSON
from recipes.engine.pictures import curves
from recipes.training_record import LATER

LIBRARY = "sightline"
TASK = "image-feature-extraction"
"""Of the hub's list; none of it says `image tokenizer`."""
FOLDERS = re.compile(r"[^=:@,\[\]'\"]*/+(?=[^/])")
"""What stands before the last name of a path, also within `--name=path` and `kind:path`."""
RETRIEVAL, PSNR = "retrieval.png", "psnr.png"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What `python -m recipes.evaluate` has found out about one orderer."""

    results: Mapping[str, JSON]
    """Of this orderer, by task."""
    protocol: Mapping[str, JSON]
    config: Mapping[str, JSON]
    """All settings of the experiment that measured."""
    made_with: Mapping[str, JSON]
    """Commit, versions, hardware, command, date."""

    def recall(self, direction: str) -> dict[int, float]:
        """R@1 by prefix; empty where retrieval was not measured."""
        found = self.results["retrieval"][direction] if "retrieval" in self.results else {}
        return {int(k): at_k["r1"] for k, at_k in found.items()}

    def accuracy(self) -> dict[int, float]:
        """Of classes by their names, by prefix; empty where captions are no names of classes."""
        found = self.results.get("classification", {}).get("top1")
        found = found or self.results.get("retrieval", {}).get("accuracy", {})
        return {int(k): share for k, share in found.items()}

    def psnr(self) -> dict[int, float]:
        """PSNR in dB by prefix; empty where reconstruction was not measured."""
        found = self.results["reconstruction"]["psnr"] if "reconstruction" in self.results else {}
        return {int(k): value for k, value in found.items()}

    @property
    def source(self) -> str:
        return ", ".join(Path(each).name for each in self.config["data"]["source"])


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that a card says; `text` is the README.md."""

    repo: str
    licence: str
    """As the hub names licences, such as apache-2.0."""
    settings: Mapping[str, JSON]
    """Of the orderer."""
    encoding_hash: str
    has_ar: bool
    datasets: Sequence[str] = ()
    """Names on the hub of the data that it was trained on."""
    revision: str | None = None
    """Tag that these very weights have on the hub."""
    measured: Measured | None = None
    trained: Mapping[str, JSON] | None = None
    """The record that its training left beside it, if any."""
    tags: Sequence[str] = field(default=("image-tokenizer", "image-text-retrieval", LIBRARY))

    def draw(self, folder: Path) -> list[str]:
        """Draw what was measured, and return the names of the pictures."""
        if self.measured is None:
            return []
        found = self.measured
        recall = {"text to image": found.recall("text_to_image")}
        recall |= {"image to text": found.recall("image_to_text")}
        drawn, at = [], "first tokens"
        if all(recall.values()):
            curves(recall, folder / RETRIEVAL, x_label=at, y_label="R@1", log2_x=True)
            drawn.append(RETRIEVAL)
        if psnr := found.psnr():
            curves({"PSNR": psnr}, folder / PSNR, x_label=at, y_label="PSNR, dB", log2_x=True)
            drawn.append(PSNR)
        return drawn

    def text(self, pictures: Sequence[str]) -> str:
        """Write the card, which shows some pictures beside it."""
        parts = [f"---\n{self._metadata()}\n---", self._what(), self._use()]
        parts += [self._figures(pictures), self._protocol(), self._training()]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _metadata(self) -> str:
        return ModelCardData(
            library_name=LIBRARY,
            tags=list(self.tags),
            pipeline_tag=TASK,
            license=self.licence,
            datasets=list(self.datasets) or None,
            model_name=self.repo.rpartition("/")[2],
            eval_results=self._eval_results() or None,
        ).to_yaml()

    def _eval_results(self) -> list[EvalResult]:
        found = self.measured
        if found is None:
            return []
        figures = [
            (f"R@1 {direction.replace('_', ' ')}, first {k} tokens", "recall_at_1", value)
            for direction in ("text_to_image", "image_to_text")
            for k, value in found.recall(direction).items()
        ]
        figures += [
            (f"class accuracy, first {k} tokens", "accuracy", value)
            for k, value in found.accuracy().items()
        ]
        figures += [
            (f"PSNR in dB, first {k} tokens", "psnr", value) for k, value in found.psnr().items()
        ]
        return [
            EvalResult(
                task_type=TASK,
                dataset_type=found.source,
                dataset_name=found.source,
                dataset_split=found.protocol["split"],
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for name, kind, value in figures
        ]

    def _what(self) -> str:
        size, tokens = self.settings["image_size"], self.settings["tokens"]
        return (
            f"# {self.repo.rpartition('/')[2]}\n\n"
            f"An orderer: it turns an image of {size} x {size} pixels into {tokens} continuous "
            f"tokens of {self.settings['token_dim']} channels, in an order learned from image-text "
            "pairs. Every prefix of them can be compared with text and decoded into an image."
            + self.has_ar
            * " In the folder `ar` lies an AR model that generates such tokens."
        )

    def _use(self) -> str:
        name = f'"{self.repo}"' + (f', revision="{self.revision}"' if self.revision else "")
        ar = f'\nmodel = ARModel.from_pretrained({name}, subfolder="ar")' * self.has_ar
        pin = "" if self.revision else "\n\nGive a commit as `revision=` to load the same again."
        return (
            "## Use\n\n"
            f"With Sightline (`from orderer import Orderer, OrdererProcessor`"
            f"{', `from ar import ARModel`' * self.has_ar}):\n\n"
            "```python\n"
            f"orderer = Orderer.from_pretrained({name})\n"
            f"processor = OrdererProcessor.from_pretrained({name})\n"
            "tokens = orderer.encode(processor.pixels([picture]), prefix=4)\n"
            f"rough = processor.images(orderer.decode(tokens))[0]{ar}\n"
            f"```{pin}"
        )

    def _figures(self, pictures: Sequence[str]) -> str:
        if self.measured is None:
            return "## Figures\n\nNone were taken."
        rows = {
            "text to image R@1": self.measured.recall("text_to_image"),
            "image to text R@1": self.measured.recall("image_to_text"),
            "class accuracy": self.measured.accuracy(),
            "PSNR, dB": self.measured.psnr(),
        }
        shown = "\n".join(f"![{name.removesuffix('.png')} by prefix]({name})" for name in pictures)
        return (
            f"## Figures\n\n{_table({name: row for name, row in rows.items() if row})}\n\n{shown}"
        )

    def _protocol(self) -> str:
        if self.measured is None:
            return ""
        found = self.measured
        about = {**found.protocol, "data": found.source, **found.made_with}
        if "command" in about:
            about["command"] = shlex.join(map(_last_name, shlex.split(about["command"])))
        return f"## Protocol\n\n{_yaml(about)}"

    def _training(self) -> str:
        about: dict[str, JSON] = {"encoding_hash": self.encoding_hash, "orderer": self.settings}
        said = f"## Training\n\nLicence of the weights: {self.licence}."
        if self.trained is None:
            unknown = _yaml(_without_folders(about))
            return f"{said} With which settings they were trained was not kept.\n\n{unknown}"
        about |= _without_command(self.trained)
        about |= {name: _without_command(about[name]) for name in LATER if name in about}
        return f"{said}\n\n{_yaml(_without_folders(about))}"


def _without_command(record: Mapping[str, JSON]) -> dict[str, JSON]:
    """The record of a training without the line that was typed."""
    made_with = {k: v for k, v in record.get("made_with", {}).items() if k != "command"}
    return {**record, "made_with": made_with} if made_with else dict(record)


def _without_folders(value: JSON) -> JSON:
    """The same values; of each path only the last name, for folders are nobody's business."""
    match value:
        case Mapping():
            return {name: _without_folders(each) for name, each in value.items()}
        case list() | tuple():
            return [_without_folders(each) for each in value]
        case str() if value.startswith(("/", "~")) or not re.search(r"\s", value):
            return _last_name(value)
    return value


def _last_name(word: str) -> str:
    return FOLDERS.sub("", word).rstrip("/")


def _table(rows: Mapping[str, Mapping[int, float]]) -> str:
    lengths = sorted({k for row in rows.values() for k in row})
    lines = [["first k tokens", *map(str, lengths)], ["---"] * (len(lengths) + 1)]
    for name, row in rows.items():
        lines.append([name, *(f"{row[k]:.3g}" if k in row else "" for k in lengths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _yaml(about: Mapping[str, JSON]) -> str:
    return f"```yaml\n{yaml.safe_dump(dict(about), sort_keys=False, allow_unicode=True)}```"

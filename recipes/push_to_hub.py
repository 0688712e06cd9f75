r"""Put a trained orderer on a hub, with its processor, its AR model if there is one, and a card.

    python -m recipes.push_to_hub --models=runs/demo --repo=OWNER/NAME --license=cc0-1.0 --dry_run
    python -m recipes.push_to_hub --models=runs/demo --repo=OWNER/NAME --license=cc0-1.0 --tag=v1

Reads MODELS/orderer, MODELS/ar and what `python -m recipes.evaluate` wrote; writes OUT, which is
what the repository will hold: safetensors, JSON, README.md (the card) and pictures, nothing else.
`--dry_run` stops there, so that one can look at it. Then uploads it, and prints the commit to load
it by. Wants a token, as `hf auth login` leaves one.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import OfflineModeIsEnabled

from ar import ARModel
from orderer import Orderer, OrdererProcessor
from recipes.engine.cli import run as start
from recipes.engine.files import replace_file
from recipes.engine.training import prepare_alone
from recipes.model_card import Card, Measured
from recipes.training_record import read_record

REPO = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
SAFE = (".safetensors", ".json", ".md", ".png")
"""What is uploaded: nothing that could run when it is opened."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to put where."""

    models: Path
    """Folder that holds `orderer`, and `ar` or none, as a training leaves them."""
    repo: str
    """OWNER/NAME."""
    license: str
    """Of the weights, as the hub names licences, such as apache-2.0 or cc-by-nc-4.0."""
    datasets: tuple[str, ...] = ()
    """Names on the hub of the data that was trained on."""
    out: Path | None = None
    """Folder of what is uploaded; null is MODELS/hub."""
    tag: str | None = None
    """Of this state of the repository, for `revision=`."""
    private: bool = False
    dry_run: bool = False
    """Write the folder and upload nothing."""

    def __post_init__(self) -> None:
        if not REPO.fullmatch(self.repo):
            raise ValueError(f"repo must be OWNER/NAME, got {self.repo!r}")
        if not self.license.strip():
            raise ValueError("license must name one, got none")


def main(config: Config) -> None:
    """Check by loading, write, upload."""
    prepare_alone()
    orderer = Orderer.from_pretrained(config.models / "orderer")
    processor = OrdererProcessor.from_pretrained(config.models / "orderer")
    out = config.out or config.models / "hub"
    orderer.save_pretrained(out)
    processor.save_pretrained(out)
    files = ["config.json", "preprocessor_config.json", *_weights(out, "")]
    has_ar = (config.models / "ar").is_dir()
    if has_ar:
        model = ARModel.from_pretrained(config.models / "ar")
        model.check_orderer(orderer.encoding_hash())
        model.save_pretrained(out / "ar")
        files += ["ar/config.json", *_weights(out, "ar/")]
    card = Card(
        repo=config.repo,
        licence=config.license,
        settings=orderer.config.own(),
        encoding_hash=orderer.encoding_hash(),
        has_ar=has_ar,
        datasets=config.datasets,
        revision=config.tag,
        measured=_measured(config.models, orderer.encoding_hash()),
        trained=read_record(config.models / "orderer"),
    )
    pictures = card.draw(out)
    replace_file(out / "README.md", card.text(pictures).encode())
    files += ["README.md", *pictures]
    print(f"{out}: {', '.join(files)}")
    if not config.dry_run:
        print(f"{config.repo} is at commit {_upload(config, out, files)}")


def _weights(folder: Path, within: str) -> list[str]:
    """One file of weights, or several and their index."""
    found = sorted((folder / within).glob("model*.safetensors*"))
    return [f"{within}{path.name}" for path in found]


def _measured(models: Path, encoding_hash: str) -> Measured | None:
    """What was measured of these models, None where nothing was.

    Raises:
        ValueError: if other models were measured.
    """
    joint = models.name == "joint"
    path = (models.parent if joint else models) / "evaluation.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_bytes())
    name = "joint" if joint else "separate"
    measured = found.get("orderers", {}).get(name, {}).get("encoding_hash")
    if measured != encoding_hash:
        raise ValueError(
            f"{path} measures the orderer {str(measured)[:12]}, not {encoding_hash[:12]}: run "
            "python -m recipes.evaluate again"
        )
    about = {key: found[key] for key in ("commit", "versions", "hardware", "command", "date")}
    return Measured(
        results=found["results"][name],
        protocol=found["protocol"],
        config=found["config"],
        made_with=about,
    )


def _upload(config: Config, folder: Path, files: list[str]) -> str:
    """Create the repository if there is none, upload, tag; returns the commit."""
    assert all(Path(file).suffix in SAFE for file in files)
    hub = HfApi()
    try:
        hub.create_repo(config.repo, private=config.private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=config.repo,
            folder_path=folder,
            allow_patterns=files,
            commit_message=f"Orderer, processor{', AR model' * ('ar/config.json' in files)}, card",
        ).oid
        if config.tag is not None:
            hub.create_tag(config.repo, tag=config.tag, revision=commit)
    except OfflineModeIsEnabled as error:
        raise ValueError(f"{config.repo} cannot be uploaded while HF_HUB_OFFLINE is set") from error
    except OSError as error:
        reason = str(error).splitlines()[0]
        raise OSError(f"the hub did not take {config.repo}: {reason}") from error
    return commit


if __name__ == "__main__":
    start(main, Config)

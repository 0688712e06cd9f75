"""What a model was trained with, kept beside its weights: settings, pairs, code and hardware."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orderer.saved import read_settings
from recipes.data_settings import TUNING
from recipes.engine.files import JSON
from recipes.engine.results import provenance, write_json
from recipes.engine.settings import plain_settings
from recipes.experiment import Experiment

RECORD = "training.json"
COMMON = ("data", "seed", "precision")
LATER = ("decoder", "joint")
"""Records of trainings that went on with the model, each in the record of the one before."""


def training_record(
    experiment: Experiment,
    *names: str,
    pairs: str,
    processes: int,
    totals: Sequence[Sequence[int]] = (),
) -> dict[str, JSON]:
    """The record of one training.

    Args:
        experiment: the settings that are trained with.
        names: of the branches of settings that this training reads beside the common ones.
        pairs: fingerprint of the pairs.
        processes: that train together.
        totals: from which step on which total of them ruled, where it has grown: such a training is
            another than one of as many steps from the start.
    """
    settings = plain_settings(experiment)
    grown = {"totals": [list(each) for each in totals]} if totals else {}
    return grown | {
        "settings": {name: settings[name] for name in (*COMMON, *names)},
        "pairs": pairs,
        "processes": processes,
        "made_with": provenance(),
    }


def write_record(folder: Path, record: Mapping[str, JSON]) -> None:
    """Write the record of a training beside what it trained."""
    write_json(folder / RECORD, record)


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a training; None for a model that has none."""
    return read_settings(folder, RECORD) if (folder / RECORD).is_file() else None


def digest_of_record(record: Mapping[str, JSON] | None) -> str | None:
    """The sha256 of what shaped a training: all of its record but where and when it ran."""
    if record is None:
        return None
    return hashlib.sha256(json.dumps(_shaping(record), sort_keys=True).encode()).hexdigest()


def _shaping(record: Mapping[str, JSON]) -> dict[str, JSON]:
    kept = {name: value for name, value in record.items() if name != "made_with"}
    return kept | {name: _shaping(kept[name]) for name in LATER if name in kept}


def check_set_apart(experiment: Experiment, folder: Path, image_size: int) -> None:
    """Refuse to measure on pairs set apart from other training pairs than a model's.

    Raises:
        ValueError: if it was trained on others, or nothing says on which.
    """
    if TUNING not in (experiment.data.test, experiment.data.unseen):
        return
    record = read_record(folder)
    if record is None or "settings" not in record:  # nor one of stage 3 alone
        raise ValueError(
            f"nothing says whether {folder} was trained without the pairs of the split {TUNING}, "
            f"it has no {RECORD} of stage 1"
        )
    pairs = experiment.data.open_train(image_size).fingerprint
    for each in (record, *[record[name] for name in LATER if name in record]):
        trained = each["settings"]["data"]
        for name in ("train", "train_count", "tuning_count"):
            if trained[name] != getattr(experiment.data, name):
                raise ValueError(
                    f"the split {TUNING} may hold pairs that {folder} was trained on: its "
                    f"data.{name} was {trained[name]}, got {getattr(experiment.data, name)}"
                )
        if each["pairs"] != pairs:
            raise ValueError(
                f"the split {TUNING} may hold pairs that {folder} was trained on: those were "
                f"{each['pairs'][:12]}, got {pairs[:12]}"
            )

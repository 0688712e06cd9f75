"""Orderers as a command line names them: a training's folder, a model's own, or one of a hub."""

from pathlib import Path

import torch

from orderer import Orderer, OrdererProcessor


def load_orderer(
    models: str, revision: str | None, device: torch.device
) -> tuple[Orderer, OrdererProcessor]:
    """Load an orderer and its processor, both of one commit where they are from a hub.

    Args:
        models: a folder that holds `orderer`, or is one, or OWNER/NAME on a hub.
        revision: commit, tag or branch on the hub; its main branch by default.
        device: to compute on.
    """
    within = Path(models) / "orderer"
    name: str | Path = within if within.is_dir() else models
    orderer = Orderer.from_pretrained(name, revision=revision).to(device).eval()
    assert orderer.saved is not None  # it was loaded
    return orderer, OrdererProcessor.from_pretrained(orderer.saved.folder)

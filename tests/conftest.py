"""For every test: shapes checked, nothing downloaded, one thread, one seed; and two tiny models."""

# ruff: noqa: E402, I001  (what changes imports stands before them)

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read at import

from jaxtyping import install_import_hook
from transformers import PreTrainedConfig

PreTrainedConfig.__no_type_check__ = True  # settings check themselves, and say so in a sentence
install_import_hook(["orderer", "ar", "data"], "beartype.beartype")

import orderer  # declares torchvision's operators, so it is first
import ar
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def tiny_orderer() -> orderer.Orderer:
    """4 tokens of 6 channels from images of 16 x 16."""
    config = orderer.OrdererConfig(
        image_size=16,
        patch_size=4,
        tokens=4,
        token_dim=6,
        width=16,
        heads=2,
        encoder_layers=2,
        decoder_layers=1,
        readout_layers=2,
        text_width=16,
        text_heads=2,
        text_layers=1,
        embed_dim=8,
    )
    return orderer.Orderer(config).eval()


@pytest.fixture
def tiny_ar() -> ar.ARModel:
    """Models 4 tokens of 6 channels, given the word embeddings of `tiny_orderer`."""
    config = ar.ARConfig(
        tokens=4,
        token_dim=6,
        condition="text",
        condition_dim=16,
        width=16,
        heads=2,
        layers=2,
        mlp_width=32,
        head_width=16,
        head_layers=2,
    )
    return awake(ar.ARModel(config)).eval()


def awake(model: ar.ARModel) -> ar.ARModel:
    """Give weights to the layers of the head that start at zero, where its output is always 0."""
    for layer in (model.head.modulate, model.head.to_data):
        torch.nn.init.normal_(layer.weight, std=0.3)
    return model

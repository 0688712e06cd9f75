"""Tiny vision networks with random weights, as transformers saves them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import (
    CLIPConfig,
    CLIPModel,
    ConvNextConfig,
    ConvNextModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

VIT = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
MAKES: dict[str, Callable[[], PreTrainedModel]] = {
    "convnext": lambda: ConvNextModel(
        ConvNextConfig(num_stages=2, hidden_sizes=[6, 8], depths=[1, 1])
    ),
    "resnet": lambda: ResNetModel(
        ResNetConfig(hidden_sizes=[8, 12], depths=[1, 1], embedding_size=8, layer_type="basic")
    ),
    "dinov2": lambda: Dinov2Model(Dinov2Config(**VIT, image_size=28, patch_size=7)),
    "vit": lambda: ViTModel(ViTConfig(**VIT, image_size=16, patch_size=8)),
    "clip": lambda: CLIPModel(
        CLIPConfig(
            text_config={**VIT, "vocab_size": 60, "bos_token_id": 1, "eos_token_id": 2},
            vision_config={**VIT, "image_size": 16, "patch_size": 8},
        )
    ),
}


@pytest.fixture
def vision_model(tmp_path: Path) -> Callable[[str], Path]:
    """Saves a network of a kind, gives its folder."""

    def save(kind: str) -> Path:
        MAKES[kind]().save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return save

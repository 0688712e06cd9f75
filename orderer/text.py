"""The text tower: open_clip's transformer, giving one embedding per text.

B batch   L word pieces, at most the context length   W width   E size of the embedding
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .borrowed import Borrowed
from .building import built_from
from .config import OrdererConfig
from .layers import portable_attention
from .pieces import spoken


@runtime_checkable
class Text(Protocol):
    """Embeds tokenised texts."""

    def words(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        """What each word piece is by itself, wherever it stands."""

    def kept(self, text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        """A mask that is False for padding."""

    def __call__(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        """Unit embeddings of texts."""


class TextTower(nn.Module):
    """A causal text transformer of open_clip, read out at the end-of-text piece as CLIP does.

    Args:
        tower: its own mask is not used, one is made at every call for the batch's longest text.
    """

    tower: Any

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def words(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        return self.tower.token_embedding(text)

    def kept(self, text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        return spoken(text)

    def forward(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        tower, length = self.tower, text.shape[1]
        unseen = torch.full((length, length), float("-inf"), device=text.device).triu(1)
        x = self.words(text) + tower.positional_embedding[:length]
        with portable_attention(text.device):
            states = tower.ln_final(tower.transformer(x, attn_mask=unseen))
        rows = torch.arange(len(text), device=text.device)
        end = states[rows, text.argmax(dim=-1)]
        return F.normalize(end @ tower.text_projection, dim=-1)


class OpenClipText(TextTower, Borrowed):
    """The text tower of one of open_clip's models."""

    def __init__(self, settings: Mapping[str, Any], trained: bool) -> None:
        from .open_clip_towers import build

        super().__init__(build(settings, "text"))
        self.tower.attn_mask = None  # not saved, so transformers, loading a model, would lose it
        self.borrow(trained)

    def start_from(self, settings: Mapping[str, Any], path: Path) -> None:
        """Take the weights from a file."""
        from .open_clip_towers import load

        self.tower.load_state_dict(load(settings, "text", path).state_dict())


def make_text(config: OrdererConfig) -> Text:
    """Make the text tower that a config names.

    Raises:
        ValueError: if its architecture builds no tower.
    """
    if config.text == "own":
        return make_own_text(config)
    with built_from("text_architecture", "tower"):
        made = _of_others(config)
    return made


def _of_others(config: OrdererConfig) -> Text:
    if config.text == "open_clip":
        return OpenClipText(config.text_architecture or {}, config.text_trained)
    from .transformers_text import TransformersText  # slow to import

    return TransformersText(config)


def make_own_text(config: OrdererConfig) -> TextTower:
    """Make a text tower of our own sizes, with random weights."""
    return TextTower(_own(config))


def _own(config: OrdererConfig) -> nn.Module:
    from open_clip.transformer import TextTransformer  # slow to import

    return TextTransformer(
        context_length=config.context_length,
        vocab_size=config.vocabulary,
        width=config.text_width,
        heads=config.text_heads,
        layers=config.text_layers,
        output_dim=config.embed_dim,
        no_causal_mask=True,
    )

"""A text encoder of transformers as the text tower, with a projection of our own.

B batch   L word pieces, at most the context length   W width   E size of the embedding

Locked-text tuning: with a frozen encoder only the projection learns, and images come to meet texts
that are understood already. The other way round, images frozen, is Zhai et al. 2022, "LiT",
https://arxiv.org/abs/2111.07991.

A text is one state of the encoder, by the kind of model (`pooling_of` says which): of a text tower
that was trained against images what it pools itself; of a model that reads from left to right the
state at the end piece; of any other the mean over the pieces.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .borrowed import Borrowed
from .config import OrdererConfig
from .layers import portable_attention
from .transformers_towers import build, load

FIXED_LENGTH = ("siglip_text_model", "siglip2_text_model")
"""Kinds that were trained on texts padded to one length, padding seen, and pool its last place."""


class TransformersText(nn.Module):
    """The encoder, and what brings its state among the embeddings, which always learns."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        width = self.encoder.network.config.hidden_size
        self.project = nn.Linear(width, config.embed_dim, bias=False)

    def words(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B L W"]:
        return self.encoder.network.get_input_embeddings()(text)

    def kept(self, text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        return self.encoder.kept(text)

    def start_from(self, settings: Mapping[str, Any], folder: Path) -> None:
        """Take the encoder's weights from a folder."""
        self.encoder.network.load_state_dict(load(settings, "text", folder).state_dict())

    def forward(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        return F.normalize(self.project(self.encoder(text)), dim=-1)


class _Encoder(Borrowed):
    """The model of transformers."""

    def __init__(self, config: OrdererConfig) -> None:
        super().__init__()
        self.network = build(config.text_architecture or {}, "text")
        self.pooling, self.end = config.text_pooling, config.text_end
        kind = self.network.config
        self.fixed_length = (
            kind.max_position_embeddings if kind.model_type in FIXED_LENGTH else None
        )
        self.borrow(config.text_trained)

    def kept(self, text: Int[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
        places = torch.arange(text.shape[1], device=text.device)
        return places <= ((text == self.end) * places).amax(dim=-1, keepdim=True)  # 0 is padding

    def forward(self, text: Int[Tensor, "B L"]) -> Float[Tensor, "B W"]:
        kept = self.kept(text)
        with (
            self.graph(self.network.get_input_embeddings().weight),
            portable_attention(text.device),
        ):
            made = self.network(**self._inputs(text, kept))
        if self.pooling == "pooled":
            return made.pooler_output
        states = made.last_hidden_state
        if self.pooling == "last":
            return states[torch.arange(len(text), device=text.device), kept.sum(dim=1) - 1]
        return (states * kept[..., None]).sum(dim=1) / kept.sum(dim=1, keepdim=True)

    def _inputs(self, text: Int[Tensor, "B L"], kept: Bool[Tensor, "B L"]) -> dict[str, Any]:
        if self.fixed_length is None:
            return {"input_ids": text, "attention_mask": kept.long()}
        padding = self.network.config.pad_token_id
        text = text.masked_fill(~kept, padding)
        return {"input_ids": F.pad(text, (0, self.fixed_length - text.shape[1]), value=padding)}

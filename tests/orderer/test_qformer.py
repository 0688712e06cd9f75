"""A trained Q-Former starts the cross encoder by name, or is refused in a sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Model,
    Blip2QFormerConfig,
    Blip2QFormerModel,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedModel,
)

from orderer import OrdererConfig
from orderer.cross_encoder import CrossEncoder
from orderer.encoder import JointEncoder
from orderer.qformer import load_qformer

FEATURES, GRID = 24, (2, 2)
WHOLE = [Blip2Model, Blip2ForConditionalGeneration, Blip2ForImageTextRetrieval]


def settings(**changes: object) -> Blip2QFormerConfig:
    return Blip2QFormerConfig(
        **{
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "encoder_hidden_size": FEATURES,
            "vocab_size": 20,
            **changes,
        }
    )


def trained(kind: type[PreTrainedModel], **changes: object) -> PreTrainedModel:
    """A small model of BLIP-2 with random weights, which say nothing but differ."""
    qformer = settings(use_qformer_text_input=kind is Blip2ForImageTextRetrieval, **changes)
    vision = Blip2VisionConfig(
        hidden_size=FEATURES,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    text = OPTConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        ffn_dim=16,
        max_position_embeddings=16,
        word_embed_proj_dim=16,
    )
    config = Blip2Config(
        vision_config=vision.to_dict(),
        qformer_config=qformer.to_dict(),
        text_config=text.to_dict(),
        num_query_tokens=8,
        image_text_hidden_size=8,
    )
    model = kind(qformer if kind is Blip2QFormerModel else config).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def make(**changes: object) -> CrossEncoder:
    config = OrdererConfig(
        **{
            "image_size": 8,
            "patch_size": 4,
            "encoder": "cross",
            "causal": False,
            "tokens": 8,
            "token_dim": 6,
            "width": 16,
            "heads": 2,
            "encoder_layers": 3,
            **changes,
        }
    )
    return CrossEncoder(config, FEATURES, GRID, outputs=6).eval()


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, 4, FEATURES)


@pytest.mark.parametrize("shard", ["1GB", "8KB"])
@pytest.mark.parametrize("kind", WHOLE)
def test_an_unordered_encoder_starts_as_the_trained_qformer(
    kind: type[PreTrainedModel], shard: str, features: Tensor, tmp_path: Path
) -> None:
    model = trained(kind)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "8KB")
    encoder = make()
    load_qformer(encoder, tmp_path)
    with torch.no_grad():
        queries = model.query_tokens.expand(2, -1, -1)
        theirs = model.qformer(query_embeds=queries, encoder_hidden_states=features)
        ours = encoder.states(features, GRID, prefix=8)
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=1e-6, rtol=0)


def test_a_qformer_by_itself_brings_all_but_the_queries(features: Tensor, tmp_path: Path) -> None:
    model, encoder = trained(Blip2QFormerModel), make()
    model.save_pretrained(tmp_path)
    before = encoder.queries.clone()
    load_qformer(encoder, tmp_path)
    assert torch.equal(encoder.queries, before)
    with torch.no_grad():
        theirs = model(query_embeds=before.expand(2, -1, -1), encoder_hidden_states=features)
        ours = encoder.states(features, GRID, prefix=8)
    torch.testing.assert_close(ours, theirs.last_hidden_state, atol=1e-6, rtol=0)


def test_fewer_tokens_take_the_first_queries(tmp_path: Path) -> None:
    model, encoder = trained(Blip2Model), make(tokens=3, causal=True)
    model.save_pretrained(tmp_path)
    load_qformer(encoder, tmp_path)
    assert torch.equal(encoder.queries, model.query_tokens[0, :3])


def test_what_the_qformer_had_not_learns_from_zero(features: Tensor, tmp_path: Path) -> None:
    encoder = make(causal=True)
    trained(Blip2Model).save_pretrained(tmp_path)
    load_qformer(encoder, tmp_path)
    encoder(features, GRID, 8).square().sum().backward()
    for added in (encoder.embed.weight, encoder.patch_positions):
        assert added.eq(0).all() and added.grad is not None and added.grad.ne(0).any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 8}, r"hidden_size 16 where the orderer has 8 \(width\)"),
        ({"encoder_layers": 2}, r"num_hidden_layers 3 where the orderer has 2 \(encoder_layers\)"),
        ({"heads": 4}, r"num_attention_heads 2 where the orderer has 4 \(heads\)"),
        ({"mlp_ratio": 3}, r"intermediate_size 32 where the orderer has 48 \(mlp_ratio times"),
        ({"cross_every": 1}, r"cross_attention_frequency 2 where the orderer has 1 \(cross_every"),
        ({"tokens": 9}, "has 8 queries, got 9 tokens"),
    ],
)
def test_other_settings_are_refused(
    changes: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    trained(Blip2Model).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=sentence):
        load_qformer(make(**changes), tmp_path)


def test_features_of_other_channels_are_refused(tmp_path: Path) -> None:
    trained(Blip2Model).save_pretrained(tmp_path)
    encoder = CrossEncoder(OrdererConfig(width=16, heads=2, encoder_layers=3), 30, GRID, outputs=6)
    with pytest.raises(ValueError, match=r"encoder_hidden_size 24 where the orderer has 30 \(chan"):
        load_qformer(encoder, tmp_path)


def test_weights_of_other_shapes_or_names_are_refused_and_change_nothing(tmp_path: Path) -> None:
    trained(Blip2Model).save_pretrained(tmp_path)
    file, encoder = tmp_path / "model.safetensors", make()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    weights = load_file(file)
    weights["qformer.layernorm.bias"] = torch.zeros(5)
    save_file(weights, file, metadata={"format": "pt"})
    sentence = r"do not fit: qformer.layernorm.bias is \[5\] and must be \[16\]"
    with pytest.raises(ValueError, match=sentence):
        load_qformer(encoder, tmp_path)
    del weights["qformer.layernorm.bias"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lack qformer.layernorm.bias$"):
        load_qformer(encoder, tmp_path)
    assert all(torch.equal(before[name], now) for name, now in encoder.state_dict().items())


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    joint = JointEncoder(OrdererConfig(), FEATURES, GRID, outputs=6)
    with pytest.raises(ValueError, match="are for the encoder 'cross', got JointEncoder"):
        load_qformer(joint, tmp_path)


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match="holds a model of the kind 'bert', not of BLIP-2"):
        load_qformer(make(), tmp_path)


def test_only_weights_in_safetensors_are_read(tmp_path: Path) -> None:
    settings().save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no weights, it has no model\.safetensors"):
        load_qformer(make(), tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"no matter")
    with pytest.raises(ValueError, match=r"safetensors only, .* got pytorch_model\.bin in"):
        load_qformer(make(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no matter")
    with pytest.raises(ValueError, match=r"model\.safetensors is no file of safetensors"):
        load_qformer(make(), tmp_path)


def test_an_index_without_files_is_refused(tmp_path: Path) -> None:
    settings().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"index\.json has no weight_map, it names no files"):
        load_qformer(make(), tmp_path)
